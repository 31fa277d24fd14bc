//! The way to the endpoint: TLS with a private authority, and proxies.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rstest::rstest;
use testbed::{Server, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::bench::{Bench, LOGS};
use crate::binary::{program, reach, run};

/// A file that is gone with this.
struct Temporary(PathBuf);

impl Temporary {
    fn new(contents: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("s3-log-rollup-{}-{number}.pem", std::process::id()));
        std::fs::write(&path, contents).expect("a writable folder");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A certificate authority, and its certificate as PEM.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new([]).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("signed").pem();
    (Issuer::new(params, key), pem)
}

/// TLS in front of a server, for 127.0.0.1.
struct Tls {
    addr: SocketAddr,
    /// The certificate of its authority.
    bundle: Temporary,
    connections: Arc<AtomicUsize>,
}

impl Tls {
    async fn before(server: &Server) -> Self {
        let (issuer, pem) = authority("ours");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([String::from("127.0.0.1")]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, to) = (Arc::clone(&connections), server.addr);
        let addr = listen(move |stream| {
            let acceptor = acceptor.clone();
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                if let (Ok(mut inside), Ok(mut server)) = (acceptor.accept(stream).await, TcpStream::connect(to).await)
                {
                    let _ = copy_bidirectional(&mut inside, &mut server).await;
                }
            }
        })
        .await;
        Self { addr, bundle: Temporary::new(&pem), connections }
    }

    fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Serves connections on a free port as long as the test runs.
async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// A proxy that lets everything through, or answers every request with a status.
struct Proxy {
    addr: SocketAddr,
    /// The first line of each connection.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn new(refusal: Option<&'static str>) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        let addr = listen(move |stream| pass_on(stream, refusal, Arc::clone(&log))).await;
        Self { addr, asked }
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn pass_on(mut client: TcpStream, refusal: Option<&str>, log: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let tunnel = line.starts_with("CONNECT ");
    let host = target.trim_start_matches("http://").split('/').next().unwrap_or_default().to_owned();
    log.lock().expect("no panic").push(line);
    if let Some(status) = refusal {
        let _ = client.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        return;
    }
    let Ok(mut server) = TcpStream::connect(host).await else { return };
    let said = if tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
    } else {
        server.write_all(&head).await
    };
    if said.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

fn filled() -> Bench {
    let mut bench = Bench::new();
    bench.fill(&Spec { prefix: String::from("logs/"), groups: 2, objects: 100, ..Spec::default() });
    bench
}

/// A run of the program against this endpoint.
async fn pass(url: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = program(&reach(url, variables));
    let (code, log, error) = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
    (code, log + &error)
}

#[tokio::test]
async fn a_pass_over_https_trusts_the_authority_of_the_ca_bundle() {
    let bench = filled();
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let tls = Tls::before(&server).await;
    let (code, log) = pass(&tls.url(), &[("AWS_CA_BUNDLE", tls.bundle.path())]).await;
    assert_eq!(code, 0, "{log}");
    assert!(tls.connections() > 0);
    assert!(bench.bed.keys(LOGS).is_empty());
    bench.balanced();
}

#[rstest]
#[case::of_the_system("SSL_CERT_FILE")]
#[case::of_another_bundle("AWS_CA_BUNDLE")]
#[tokio::test]
async fn an_unknown_authority_ends_with_2_at_the_first_request_and_names_endpoint_and_variable(#[case] other: &str) {
    let bench = filled();
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let tls = Tls::before(&server).await;
    let stranger = Temporary::new(&authority("a stranger").1);
    let (code, log) = pass(&tls.url(), &[(other, stranger.path())]).await;
    assert_eq!(code, 2, "{log}");
    for says in [&*tls.url(), "AWS_CA_BUNDLE", "UnknownIssuer"] {
        assert!(log.contains(says), "{log} does not say {says}");
    }
    // The first listings of a pass run side by side; none is tried again.
    assert!(tls.connections() <= 2, "{} connections", tls.connections());
    assert!(bench.bed.requests().is_empty());
}

#[tokio::test]
async fn a_ca_bundle_with_a_damaged_certificate_exits_with_2_and_is_named() {
    let good = authority("ours").1;
    let (begin, end) = ("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n");
    for bad in [format!("{begin}no base64!\n{end}"), format!("{begin}AAAA\n{end}"), format!("{begin}AAAA\n")] {
        let bundle = Temporary::new(&(good.clone() + &bad));
        let (code, log) = pass("https://127.0.0.1:1", &[("AWS_CA_BUNDLE", bundle.path())]).await;
        assert_eq!(code, 2, "{bad:?}: {log}");
        assert!(log.contains("AWS_CA_BUNDLE") && log.contains(bundle.path()), "{bad:?}: {log}");
    }
}

#[rstest]
#[case("HTTPS_PROXY", "NO_PROXY")]
#[case("https_proxy", "no_proxy")]
#[tokio::test]
async fn https_goes_through_the_proxy_unless_no_proxy_names_the_host(#[case] https: &str, #[case] no: &str) {
    for direct in [false, true] {
        let bench = filled();
        let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
        let tls = Tls::before(&server).await;
        let proxy = Proxy::new(None).await;
        let (url, hosts) = (proxy.url(), if direct { "example.com, 127.0.0.1" } else { "example.com" });
        let (code, log) = pass(&tls.url(), &[("AWS_CA_BUNDLE", tls.bundle.path()), (https, &url), (no, hosts)]).await;
        assert_eq!(code, 0, "{log}");
        bench.balanced();
        let tunnel = format!("CONNECT {} HTTP/1.1", tls.addr);
        assert!(proxy.asked().iter().all(|line| *line == tunnel), "{:?}", proxy.asked());
        assert_eq!(proxy.asked().len(), if direct { 0 } else { tls.connections() });
        assert!(tls.connections() > 0);
    }
}

#[rstest]
#[case("HTTP_PROXY", "NO_PROXY")]
#[case("http_proxy", "no_proxy")]
#[tokio::test]
async fn http_goes_through_the_proxy_unless_no_proxy_names_the_host(#[case] http: &str, #[case] no: &str) {
    for direct in [false, true] {
        let bench = filled();
        let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
        let proxy = Proxy::new(None).await;
        let (url, hosts) = (proxy.url(), if direct { "127.0.0.1" } else { "" });
        let (code, log) = pass(&server.url(), &[(http, &url), (no, hosts)]).await;
        assert_eq!(code, 0, "{log}");
        bench.balanced();
        let whole = format!(" {}/", server.url());
        assert!(proxy.asked().iter().all(|line| line.contains(&whole)), "{:?}", proxy.asked());
        assert_eq!(proxy.asked().is_empty(), direct);
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_down_ends_with_1_and_is_named_after_the_retries() {
    let bench = filled();
    let server = bench.bed.serve("127.0.0.1:0").await.expect("a free port");
    let tls = Tls::before(&server).await;
    let forbidden = Proxy::new(Some("403 Forbidden")).await;
    let unknown = Proxy::new(Some("407 Proxy Authentication Required")).await;
    let down = TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a free port");
    let proxies =
        [(forbidden.url(), "unsuccessful"), (unknown.url(), "authorization"), (format!("http://{down}"), "refused")];
    // Side by side: each takes the seconds of its retries.
    let endings = proxies.map(|(proxy, says)| {
        let (url, bundle) = (tls.url(), tls.bundle.path());
        async move {
            let (code, log) = pass(&url, &[("AWS_CA_BUNDLE", bundle), ("HTTPS_PROXY", &proxy)]).await;
            assert_eq!(code, 1, "{log}");
            for says in [&*url, "HTTPS_PROXY", "NO_PROXY", says] {
                assert!(log.contains(says), "{log} does not say {says}");
            }
        }
    });
    futures::future::join_all(endings).await;
    assert_eq!(tls.connections(), 0, "nothing goes around the proxy");
    assert!(forbidden.asked().len() > 1, "{:?}", forbidden.asked());
}
