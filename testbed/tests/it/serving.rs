//! The testbed over TCP.

use testbed::{FaultKind, Settings, Testbed, When};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends one request and reads until the server closes the connection.
async fn exchange(server: &testbed::Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn it_serves_over_tcp() {
    let bed = Testbed::new(Settings { check_signatures: false, ..Settings::default() });
    bed.create_bucket("logs");
    let server = bed.serve("127.0.0.1:0").await.unwrap();
    let put = "PUT /logs/a%20key HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nline\n";
    assert!(exchange(&server, put).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(bed.object("logs", "a key").unwrap().bytes(), "line\n");
    let get = "GET /logs/a%20key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(exchange(&server, get).await.ends_with("\r\n\r\nline\n"));

    bed.fault(When::any(), FaultKind::TruncatedBody);
    let cut = exchange(&server, get).await;
    assert!(cut.contains("content-length: 5") && cut.ends_with("\r\n\r\nli"), "{cut}");
    bed.fault(When::any(), FaultKind::ResetBefore);
    assert_eq!(exchange(&server, get).await, "");
    drop(server);
}
