//! Credentials of a profile with SSO.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use testbed::Spec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bench::{Bench, LOGS};
use crate::binary::{WHERE, program, run};

/// The SHA-1 of the session's name, `acme`: the token's file is named so.
const TOKEN_FILE: &str = "293abb6b76d7791c0732cc517d38c4b5c734b87f.json";

const PROFILE: &str = "\
[profile audit]
sso_session = acme
sso_account_id = 111122223333
sso_role_name = LogKeeper
region = us-east-1

[sso-session acme]
sso_region = us-east-1
sso_start_url = https://acme.awsapps.com/start
sso_registration_scopes = sso:account:access
";

/// A home with the profile, and a token if there is one; gone with this.
struct Home(PathBuf);

impl Home {
    fn new(name: &str, token_expires: Option<&str>) -> Self {
        let home = std::env::temp_dir().join(format!("s3-log-rollup-{}-{name}", std::process::id()));
        let cache = home.join(".aws/sso/cache");
        std::fs::create_dir_all(&cache).expect("a writable folder");
        std::fs::write(home.join(".aws/config"), PROFILE).expect("it can be written");
        if let Some(expires) = token_expires {
            let token = format!(r#"{{"accessToken":"the-token","expiresAt":"{expires}","region":"us-east-1"}}"#);
            std::fs::write(cache.join(TOKEN_FILE), token).expect("it can be written");
        }
        Self(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The portal that gives out a role's credentials for a token.
struct Portal {
    url: String,
    /// The heads of its requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Portal {
    async fn new(status: &'static str, body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                log.lock().expect("no panic").push(String::from_utf8_lossy(&head).into_owned());
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                     Connection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// A run of the program with the profile.
async fn pass(home: &Home, portal: &Portal, s3: &str) -> (i32, String) {
    let mut command = program(&WHERE);
    command.env("HOME", &home.0).env("AWS_PROFILE", "audit").env("ROLLUP_FORCE_PATH_STYLE", "true");
    command.env("AWS_ENDPOINT_URL_SSO", &portal.url).env("AWS_ENDPOINT_URL_S3", s3);
    let (code, log, error) = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
    (code, log + &error)
}

#[tokio::test]
async fn a_profile_with_sso_gets_its_roles_credentials_and_makes_a_pass() {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), objects: 50, ..Spec::default() });
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let credentials = format!(
        r#"{{"roleCredentials":{{"accessKeyId":"ASIASSO","secretAccessKey":"{}","sessionToken":"a-session","expiration":32503680000000}}}}"#,
        testbed::SECRET_KEY
    );
    let portal = Portal::new("200 OK", credentials).await;
    let home = Home::new("sso", Some("2999-01-01T00:00:00Z"));
    let (code, log) = pass(&home, &portal, &server.url()).await;
    assert_eq!(code, 0, "{log}");
    let asked = portal.asked();
    // Once to look for credentials at all, once for the requests.
    assert!((1..=2).contains(&asked.len()), "{asked:?}");
    for says in ["GET /federation/credentials?", "role_name=LogKeeper", "account_id=111122223333", "the-token"] {
        assert!(asked[0].contains(says), "{} does not say {says}", asked[0]);
    }
    for secret in [testbed::SECRET_KEY, "the-token", "a-session"] {
        assert!(!log.contains(&format!("{secret}\"")), "{log}");
    }
    assert!(bench.bed.keys(LOGS).is_empty());
    bench.balanced();
}

#[tokio::test]
async fn without_a_fresh_sso_token_it_exits_with_3_and_says_how_to_log_in() {
    let bench = Bench::new();
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let refusal = r#"{"__type":"UnauthorizedException","message":"Session token not found or invalid"}"#;
    let cases =
        [("expired", Some("2020-01-01T00:00:00Z")), ("missing", None), ("refused", Some("2999-01-01T00:00:00Z"))];
    for (name, token) in cases {
        let portal = Portal::new("401 Unauthorized", String::from(refusal)).await;
        let home = Home::new(name, token);
        let (code, log) = pass(&home, &portal, &server.url()).await;
        println!("{name}: {log}");
        assert_eq!(code, 3, "{name}: {log}");
        assert!(log.contains("aws sso login --profile audit"), "{name}: {log}");
        assert!(bench.bed.requests().is_empty());
    }
}
