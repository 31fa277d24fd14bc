//! Nothing that could sign a request is ever written: not at any level, in any form, to any place.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rstest::rstest;
use testbed::{FaultKind, Operation, Settings, Spec, When};

use crate::bench::{Bench, LOGS, OUT};
use crate::binary::{WHERE, program, reach, run};

const SECRET_KEY: &str = "k3Rz8QvXt+5uWyB2/nM7aPcD9eFgHjLsT0oYxZqE";
const TOKEN: &str = "IQoJb3JpZ2luX2VjE/session+token/A1b2C3d4E5f6==";
const WRONG_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// The password for the container's credentials, and the web identity's token.
const BEARER: &str = "eyJhbGciOiJSUzI1NiJ9.bearer-of-this/9z8y7x+w.c2lnbmF0dXJl";
const PROXY_PASSWORD: &str = "pr0xy-passw0rd-of-mine";

/// The ways in which a text may stand in an output.
fn forms(secret: &str) -> Vec<String> {
    let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let mut forms = vec![secret.to_owned(), encoded.to_lowercase(), encoded, secret.replace('/', "\\/")];
    // As part of a longer text in base64, at each of the three places that its first byte may have.
    for before in 0..3 {
        let padded = [&vec![0; before], secret.as_bytes()].concat();
        let whole = STANDARD.encode(&padded[..padded.len() / 3 * 3]);
        forms.push(whole[(before * 8).div_ceil(6)..].to_owned());
    }
    forms
}

/// Looks through everything that was written.
#[track_caller]
fn is_silent(what: &str, written: &str) {
    for secret in [SECRET_KEY, TOKEN, WRONG_KEY, BEARER, PROXY_PASSWORD] {
        for form in forms(secret) {
            let at = written.find(&form);
            let around = at.map(|at| String::from_utf8_lossy(&written.as_bytes()[at.saturating_sub(200)..at + 20]));
            assert!(at.is_none(), "{what}: {secret} was written as {form}: …{}", around.unwrap_or_default());
        }
    }
    let signature = ["Signature=", "AWS4-HMAC-SHA256", "x-amz-security-token", "X-Amz-Security-Token"];
    for says in signature {
        assert!(!written.contains(says), "{what}: {says} was written");
    }
}

/// A file of this test's own.
fn file(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("s3-log-rollup-{}-{name}", std::process::id()));
    std::fs::write(&path, content).expect("a temporary file");
    path
}

/// Answers every request with this status and body for as long as the test runs.
fn answering(status: &'static str, body: String) -> String {
    serving(move |_| (status, body.clone()))
}

/// The same, where the answer follows from the request's head. A token of the metadata service is good for six hours.
fn serving(answer: impl Fn(&str) -> (&'static str, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 8192];
            // A client that is gone needs no answer.
            let read = stream.read(&mut request).unwrap_or_default();
            let (status, body) = answer(&String::from_utf8_lossy(&request[..read]));
            let head = "Connection: close\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600";
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{head}\r\n\r\n{body}");
        }
    });
    url
}

/// The metadata service of an instance with a role: a token first, then the role's name, then its credentials.
fn instance(request: &str) -> (&'static str, String) {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let (line, head) = request.split_once("\r\n").unwrap_or((request, ""));
    let with_token = head.lines().any(|line| {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        name.eq_ignore_ascii_case("x-aws-ec2-metadata-token") && value == BEARER
    });
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["PUT", "/latest/api/token", _] => ("200 OK", BEARER.to_owned()),
        ["GET", ROLES, _] if with_token => ("200 OK", String::from("audit")),
        ["GET", path, _] if with_token && path.strip_prefix(ROLES) == Some("audit") => {
            ("200 OK", container_answer().replacen('{', "{\"Code\":\"Success\",", 1))
        }
        _ => ("404 Not Found", String::new()),
    }
}

fn container_answer() -> String {
    format!(
        "{{\"AccessKeyId\":\"AKIATESTBED\",\"SecretAccessKey\":\"{SECRET_KEY}\",\"Token\":\"{TOKEN}\",\
         \"Expiration\":\"2099-01-01T00:00:00Z\"}}"
    )
}

fn sts_answer() -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AKIATESTBED</AccessKeyId>\
         <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    )
}

/// Where the credentials come from.
#[derive(Clone, Copy, Debug)]
enum From {
    Environment,
    WrongKey,
    Profile,
    Container,
    Identity,
    Instance,
    /// Sources that answer with the secret, but in no form that can be read.
    DamagedProfile,
    DamagedContainer,
    RefusingContainer,
    DamagedProcess,
}

fn variables(from: From, name: &str) -> Vec<(&'static str, String)> {
    let config = |key: &str, value: String| {
        let path = file(&format!("{name}-{key}"), &value);
        path.to_string_lossy().into_owned()
    };
    let empty = || config("config", String::new());
    let container = |url: String| {
        vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{url}/credentials")),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", BEARER.to_owned()),
        ]
    };
    let profile = |content: String| {
        vec![
            ("AWS_PROFILE", String::from("audit")),
            ("AWS_SHARED_CREDENTIALS_FILE", config("credentials", content)),
            ("AWS_CONFIG_FILE", empty()),
        ]
    };
    let keys = |secret: &str| {
        vec![
            ("AWS_ACCESS_KEY_ID", String::from("AKIATESTBED")),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_SESSION_TOKEN", TOKEN.to_owned()),
        ]
    };
    let process = |output: String| format!("[audit]\ncredential_process = /bin/cat {}\n", config("process", output));
    match from {
        From::Environment => keys(SECRET_KEY),
        From::WrongKey => keys(WRONG_KEY),
        From::Profile => profile(format!(
            "[audit]\naws_access_key_id = AKIATESTBED\naws_secret_access_key = {SECRET_KEY}\naws_session_token = {TOKEN}\n"
        )),
        From::DamagedProfile => profile(format!("[audit]\naws_access_key_id = AKIATESTBED\n{SECRET_KEY}\n")),
        From::DamagedProcess => profile(process(container_answer())),
        From::Container => container(answering("200 OK", container_answer())),
        From::DamagedContainer => container(answering("200 OK", container_answer().replace('}', ",,"))),
        From::RefusingContainer => {
            container(answering("500 Oops", format!("{{\"Message\":\"{SECRET_KEY} {TOKEN}\"}}")))
        }
        From::Identity => vec![
            ("AWS_WEB_IDENTITY_TOKEN_FILE", config("token", BEARER.to_owned())),
            ("AWS_ROLE_ARN", String::from("arn:aws:iam::111122223333:role/audit")),
            ("AWS_ENDPOINT_URL_STS", answering("200 OK", sts_answer())),
        ],
        From::Instance => vec![
            ("AWS_EC2_METADATA_DISABLED", String::from("false")),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", serving(instance)),
        ],
    }
}

#[rstest]
#[case(From::Environment, 1)]
#[case(From::WrongKey, 3)]
#[case(From::Profile, 1)]
#[case(From::Container, 1)]
#[case(From::Identity, 1)]
#[case(From::Instance, 1)]
#[case(From::DamagedProfile, 3)]
#[case(From::DamagedContainer, 3)]
#[case(From::RefusingContainer, 3)]
#[case(From::DamagedProcess, 3)]
#[tokio::test]
async fn no_secret_is_written_at_any_level_wherever_the_credentials_come_from(#[case] from: From, #[case] code: i32) {
    for format in ["bunyan", "pretty"] {
        let settings = Settings { secret_key: SECRET_KEY.to_owned(), ..Settings::default() };
        let mut bench = Bench::with(settings);
        bench.fill(&Spec { prefix: String::from("logs/"), groups: 2, objects: 20, ..Spec::default() });
        bench.log("logs/2026-01-31-00-00-00-0", &format!("{}\n", "x".repeat(6 << 20)));
        let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
        for (operation, bucket) in [
            (Operation::ListObjectsV2, LOGS),
            (Operation::GetObject, LOGS),
            (Operation::UploadPart, OUT),
            (Operation::PutObject, OUT),
            (Operation::DeleteObjects, LOGS),
        ] {
            bench.bed.fault(When::operation(operation).bucket(bucket), FaultKind::Status(503, "SlowDown"));
            bench.bed.fault(When::operation(operation).bucket(bucket), FaultKind::ResetBefore);
        }
        let refused = When::operation(Operation::GetObject).bucket(LOGS).skip(9).times(2);
        bench.bed.fault(refused, FaultKind::Status(403, "AccessDenied"));
        let name = format!("{from:?}-{format}");
        let message = file(&format!("{name}-message"), "");
        let (url, path) = (server.url(), message.to_string_lossy().into_owned());
        let more = [("ROLLUP_LOG_FORMAT", format), ("RUST_LOG", "trace"), ("ROLLUP_TERMINATION_LOG", path.as_str())];
        let credentials = variables(from, &name);
        let mut settings = reach(&url, &more);
        settings.retain(|(name, _)| !matches!(*name, "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY"));
        settings.extend(credentials.iter().map(|(name, value)| (*name, value.as_str())));
        let mut command = program(&settings);
        let (exit, log, error) = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
        assert_eq!(exit, code, "{name}: {log}{error}");
        let message = std::fs::read_to_string(&message).expect("it is there");
        is_silent(&name, &format!("{log}\n{error}\n{message}"));
        let told = if format == "bunyan" { &log } else { &error };
        assert!(code == 3 || told.contains("SlowDown"), "{name} says nothing at its own debug level: {told}");
    }
}

#[test]
fn the_metadata_service_is_not_asked_where_the_environment_switches_it_off() {
    let (seen, asked) = std::sync::mpsc::channel();
    let url = serving(move |request| {
        // Nobody may listen any more.
        let _ = seen.send(request.lines().next().unwrap_or_default().to_owned());
        instance(request)
    });
    for (disabled, expected) in [("true", 3), ("false", 1)] {
        let settings = [
            ("AWS_EC2_METADATA_DISABLED", disabled),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()),
            // Nobody is there: with credentials it comes as far as that.
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_REGION", "us-east-1"),
        ];
        let (code, log, error) = run(&mut program(&[&settings[..], &WHERE[..]].concat()));
        assert_eq!(code, expected, "{log}{error}");
        assert_eq!(asked.try_iter().count() > 0, disabled == "false");
    }
}

#[test]
fn the_password_of_a_proxy_is_not_written() {
    let proxy = format!("http://me:{PROXY_PASSWORD}@{}", &answering("407 Auth", String::new())["http://".len()..]);
    let settings = [
        ("AWS_ENDPOINT_URL", "https://s3.example.com"),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("HTTPS_PROXY", proxy.as_str()),
        ("RUST_LOG", "trace"),
        ("ROLLUP_LOG_FORMAT", "bunyan"),
    ];
    let mut variables = reach("", &settings);
    variables.remove(0);
    variables.retain(|(name, value)| *name != "AWS_SECRET_ACCESS_KEY" || *value == SECRET_KEY);
    let (code, log, error) = run(&mut program(&variables));
    assert_eq!(code, 1, "{log}{error}");
    is_silent("a proxy", &(log + &error));
}

#[test]
fn a_secret_would_be_found_in_each_of_its_forms() {
    for text in [
        format!("x={SECRET_KEY}"),
        STANDARD.encode(format!("u:{TOKEN} and so on")),
        STANDARD.encode(format!("user:{TOKEN} and so on")),
        utf8_percent_encode(TOKEN, NON_ALPHANUMERIC).to_string(),
        String::from("Authorization: AWS4-HMAC-SHA256 Credential=…"),
    ] {
        std::panic::catch_unwind(|| is_silent("this test", &text)).expect_err("it is written there");
    }
}
