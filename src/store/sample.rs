//! GETs of whole objects, made like one that the SDK made.
//!
//! Settings, endpoint and interceptors put together anew are more than half of what a GET of the SDK's client costs, and a
//! pass is made of GETs (`docs/PERFORMANCE.md`). Those of one bucket differ by the key and the `ETag` alone. So the SDK makes
//! one, which is looked at and not sent, and all are made like it: its address and headers, its connections, its
//! credentials and their renewal, its signer. An answer that is not plainly the object is given back to the SDK to read,
//! so that it alone tells errors apart.

use std::sync::{Arc, Mutex, PoisonError};

use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::SCHEME_ID;
use aws_sdk_s3::config::{ConfigBag, Intercept, Layer, RuntimeComponents};
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_checksums::ChecksumAlgorithm;
use aws_smithy_checksums::body::validate::ChecksumBody;
use aws_smithy_checksums::http::CHECKSUM_ALGORITHMS_IN_PRIORITY_ORDER;
use aws_smithy_http::label::{EncodingStrategy, fmt_string};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::{AuthScheme, AuthSchemeEndpointConfig, SharedAuthScheme};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::identity::{ResolveCachedIdentity, SharedIdentityResolver};
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::endpoint::{Endpoint, EndpointAuthScheme};
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use base64::Engine;
use tokio::sync::OnceCell;

use super::BASE64;
use crate::source::ETag;

/// Headers that are of one request: the signer's, the SDK's about its attempts, and the condition.
const OF_ONE_REQUEST: [&str; 7] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "if-match",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// What the GETs of one bucket have in common, once one was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample(Arc<OnceCell<Seen>>);

#[derive(Debug)]
struct Seen {
    /// The address as far as the key, and what follows the key.
    address: (String, String),
    headers: Vec<(String, String)>,
    connector: SharedHttpConnector,
    scheme: SharedAuthScheme,
    identity: SharedIdentityResolver,
    /// What the endpoint has the signer do.
    signing: EndpointAuthScheme,
    components: RuntimeComponents,
    /// What the signer looks up.
    settings: ConfigBag,
}

/// What became of a GET that was made like the sample.
pub(super) enum Sent {
    /// It was not sent: there is no sample, or it could not be signed.
    No,
    /// The object, and its tag.
    Object(String, ByteStream),
    /// Any other answer, or none: for the SDK to read, as that of the request that is made with this client.
    Other(SharedHttpClient),
}

impl Sample {
    /// Sends a GET; `request` is for the SDK to make one of the same key.
    pub(super) async fn get(
        &self,
        request: impl FnOnce() -> GetObjectFluentBuilder,
        key: &str,
        etag: Option<&ETag>,
    ) -> Sent {
        let seen = self.0.get_or_try_init(|| Box::pin(look(request(), key))).await;
        let Ok(seen) = seen else { return Sent::No };
        // What is wrong will be wrong for the SDK, too, which says it better.
        let Ok(request) = seen.request(key, etag).await else { return Sent::No };
        match seen.connector.call(request).await {
            Ok(answer) if answer.status().as_u16() == 200 => match answer.headers().get("etag") {
                Some(etag) => Sent::Object(etag.to_owned(), checked(answer)),
                None => Sent::Other(answered(Ok(answer))),
            },
            other => Sent::Other(answered(other)),
        }
    }
}

impl Seen {
    async fn request(&self, key: &str, etag: Option<&ETag>) -> Result<HttpRequest, BoxError> {
        let (before, after) = &self.address;
        let mut request = HttpRequest::get([before, &*encoded(key), after].concat())?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.try_insert(name.clone(), value.clone())?;
        }
        if let Some(etag) = etag {
            headers.try_insert("if-match", etag.quoted())?;
        }
        let cache = self.components.identity_cache();
        let identity = cache.resolve_cached_identity(self.identity.clone(), &self.components, &self.settings).await?;
        let signing = AuthSchemeEndpointConfig::from_typed(&self.signing);
        self.scheme.signer().sign_http_request(&mut request, &identity, signing, &self.components, &self.settings)?;
        Ok(request)
    }

    /// Of a request that is ready; none where it is not signed in the usual way.
    fn of(request: &HttpRequest, key: &str, components: &RuntimeComponents, bag: &ConfigBag) -> Option<Self> {
        let (path, query) = request.uri().split_once('?').unwrap_or((request.uri(), ""));
        let before = path.strip_suffix(&encoded(key))?.to_owned();
        let after = if query.is_empty() { String::new() } else { format!("?{query}") };
        let common = request.headers().iter().filter(|(name, _)| !OF_ONE_REQUEST.contains(name));
        let signing =
            bag.load::<Endpoint>()?.auth_schemes().iter().find(|scheme| scheme.name() == SCHEME_ID.inner())?;
        let scheme = components.auth_scheme(SCHEME_ID)?;
        let timeouts = bag.load::<TimeoutConfig>()?;
        let mut connector = HttpConnectorSettings::builder();
        connector.set_connect_timeout(timeouts.connect_timeout()).set_read_timeout(timeouts.read_timeout());
        let mut layer = Layer::new("sample");
        layer.store_put(bag.load::<SigV4OperationSigningConfig>()?.clone());
        layer.store_put(bag.load::<SigningRegion>()?.clone());
        layer.store_put(bag.load::<SigningName>()?.clone());
        Some(Self {
            address: (before, after),
            headers: common.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            connector: components.http_client()?.http_connector(&connector.build(), components),
            identity: scheme.identity_resolver(components)?,
            scheme,
            signing: signing.clone(),
            components: components.clone(),
            settings: ConfigBag::of_layers(vec![layer]),
        })
    }
}

/// Has the SDK make a GET of this key and not send it. An error where it comes not so far, or where it is not signed in the
/// usual way, as those to directory buckets.
async fn look(request: GetObjectFluentBuilder, key: &str) -> Result<Seen, BoxError> {
    let look = Look { key: key.to_owned(), seen: Arc::default() };
    let unsent = request.customize().interceptor(look.clone()).send().await.err();
    let seen = look.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    seen.ok_or_else(|| unsent.map_or_else(|| "it was sent".into(), Into::into))
}

/// Looks at a request when it is ready, and stops it.
#[derive(Clone, Debug)]
struct Look {
    key: String,
    seen: Arc<Mutex<Option<Seen>>>,
}

#[dyn_dispatch_hint]
impl Intercept for Look {
    fn name(&self) -> &'static str {
        "Look"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let seen = Seen::of(context.request(), &self.key, components, bag);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Err("it was to be looked at only".into())
    }
}

fn encoded(key: &str) -> String {
    fmt_string(key, EncodingStrategy::Greedy)
}

/// The body, which breaks off where it is not that of the checksum, if the answer names one: as the SDK has it.
fn checked(answer: HttpResponse) -> ByteStream {
    let checksum = checksum(answer.headers());
    let body = answer.into_body();
    ByteStream::new(match checksum {
        Some((algorithm, expected)) => {
            SdkBody::from_body_1_x(ChecksumBody::new(body, algorithm.into_impl(), expected.into()))
        }
        None => body,
    })
}

/// The checksum that is the quickest to compute. One that ends with a number is of parts, and says nothing of the whole.
fn checksum(headers: &Headers) -> Option<(ChecksumAlgorithm, Vec<u8>)> {
    let mut named = CHECKSUM_ALGORITHMS_IN_PRIORITY_ORDER.into_iter().filter_map(|name| {
        let expected = BASE64.decode(headers.get(format!("x-amz-checksum-{name}"))?).ok()?;
        Some((name.parse().ok()?, expected))
    });
    named.next()
}

/// A client whose only answer is this one.
fn answered(answer: Result<HttpResponse, ConnectorError>) -> SharedHttpClient {
    let answer = Answered(Arc::new(Mutex::new(Some(answer))));
    http_client_fn(move |_, _| SharedHttpConnector::new(answer.clone()))
}

#[derive(Clone, Debug)]
struct Answered(Arc<Mutex<Option<Result<HttpResponse, ConnectorError>>>>);

impl HttpConnector for Answered {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let twice = || Err(ConnectorError::other("the answer was read already".into(), None));
        HttpConnectorFuture::ready(answer.unwrap_or_else(twice))
    }
}
