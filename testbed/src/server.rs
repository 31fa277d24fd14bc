//! The testbed over HTTP/1.1 on a TCP port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::Body;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::task::{JoinHandle, JoinSet};

use crate::front::Front;

/// A running server; it stops, with its connections, when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// The address that it listens on.
    pub addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// The endpoint URL for an S3 client, which must use path-style addresses.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) async fn start(front: Arc<Front>, address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let addr = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            // Its connections end with the task: dropping the set aborts them.
            let mut connections = JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                let front = Arc::clone(&front);
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let front = Arc::clone(&front);
                    async move { front.serve(request.map(Body::from), 0).await }
                });
                // An error is a connection that a client or a fault broke: both ends know.
                connections.spawn(async move {
                    let mut http = http1::Builder::new();
                    let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { addr, accepting })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
