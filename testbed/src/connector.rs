//! The testbed as the SDK's HTTP client: requests go to it without a socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use hyper::header::{HOST, HeaderValue};
use s3s::Body;

use crate::front::Front;

/// One client: its number, from 1, tells its requests from those of others.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    front: Arc<Front>,
    client: u64,
}

impl Connector {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        let client = front.clients.fetch_add(1, Ordering::Relaxed) + 1;
        Self { front, client }
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (front, client) = (Arc::clone(&self.front), self.client);
        HttpConnectorFuture::new(async move {
            let user = |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::user(error);
            let mut request = request.try_into_http1x().map_err(|error| user(error.into()))?.map(Body::http_body);
            // A real client's transport adds it; the signature covers it.
            if !request.headers().contains_key(HOST)
                && let Some(authority) = request.uri().authority()
            {
                let host = HeaderValue::from_str(authority.as_str()).map_err(|error| user(error.into()))?;
                request.headers_mut().insert(HOST, host);
            }
            let response = front.serve(request, client).await.map_err(|reset| ConnectorError::io(reset.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x)).map_err(|error| user(error.into()))
        })
    }
}
