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
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_checksums::ChecksumAlgorithm;
use aws_smithy_checksums::body::validate::ChecksumBody;
use aws_smithy_checksums::http::CHECKSUM_ALGORITHMS_IN_PRIORITY_ORDER;
use aws_smithy_http::label::{EncodingStrategy, fmt_string};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::{AuthScheme, AuthSchemeEndpointConfig, SharedAuthScheme};
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
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
use aws_smithy_types::retry::RetryConfig;
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

/// Why the SDK had nothing to send.
type Unsent = SdkError<GetObjectError, HttpResponse>;

/// What the GETs of one bucket have in common, once one was made; nothing where they are not signed in the usual way, as
/// those to directory buckets.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample(Arc<OnceCell<Option<Seen>>>);

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
    /// There is no sample.
    No,
    /// It could not be signed: there are no credentials, say.
    Unsigned(Box<Unsent>),
    /// The object, and its tag.
    Object(String, ByteStream),
    /// Any other answer, or none: for the SDK to read, as that of the request that is made with this client.
    Other(SharedHttpClient),
}

impl Sample {
    /// Sends a GET of an object of `size` bytes; `request` is for the SDK to make one of the same key.
    pub(super) async fn get(
        &self,
        request: impl FnOnce() -> GetObjectFluentBuilder,
        key: &str,
        etag: Option<&ETag>,
        size: u64,
    ) -> Sent {
        let seen = match self.0.get_or_try_init(|| Box::pin(look(request(), key))).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Sent::No,
            Err(unsent) => return Sent::Unsigned(Box::new(unsent)),
        };
        let connection = CaptureSmithyConnection::new();
        let request = match seen.request(key, etag, &connection).await {
            Ok(request) => request,
            Err(why) => return Sent::Unsigned(Box::new(Unsent::construction_failure(why))),
        };
        let answer = seen.connector.call(request).await;
        let etag = answer.as_ref().ok().and_then(|answer| plain(answer, size));
        match (etag, answer) {
            (Some(etag), Ok(answer)) => Sent::Object(etag, checked(answer)),
            (_, other) => Sent::Other(answered(other, connection)),
        }
    }
}

/// The tag of an object that came as it should: the one that is named, before a body of the right length.
fn plain(answer: &HttpResponse, size: u64) -> Option<String> {
    let headers = answer.headers();
    let mut etags = headers.get_all("etag");
    let (etag, more) = (etags.next()?, etags.next());
    let right = answer.status().as_u16() == 200
        && more.is_none()
        && headers.get_all("content-length").all(|length| length.parse() == Ok(size));
    right.then(|| etag.to_owned())
}

impl Seen {
    async fn request(
        &self,
        key: &str,
        etag: Option<&ETag>,
        connection: &CaptureSmithyConnection,
    ) -> Result<HttpRequest, BoxError> {
        let (before, after) = &self.address;
        let mut request = HttpRequest::get([before, &*encoded(key), after].concat())?;
        request.add_extension(connection.clone());
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
        request.headers().get("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let common = request.headers().iter().filter(|(name, _)| !OF_ONE_REQUEST.contains(name));
        let signing =
            bag.load::<Endpoint>()?.auth_schemes().iter().find(|scheme| scheme.name() == SCHEME_ID.inner())?;
        let scheme = components.auth_scheme(SCHEME_ID)?;
        let timeouts = bag.load::<TimeoutConfig>()?;
        let mut connector = HttpConnectorSettings::builder();
        connector.set_connect_timeout(timeouts.connect_timeout()).set_read_timeout(timeouts.read_timeout());
        let mut layer = Layer::new("sample");
        // How long credentials may take to be renewed follows from these two.
        layer.store_put(timeouts.clone());
        layer.store_put(bag.load::<RetryConfig>()?.clone());
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

/// Has the SDK make a GET of this key and not send it. An error where it comes not so far.
async fn look(request: GetObjectFluentBuilder, key: &str) -> Result<Option<Seen>, Unsent> {
    let look = Look { key: key.to_owned(), looked: Arc::default() };
    let sent = request.customize().interceptor(look.clone()).send().await;
    let looked = std::mem::take(&mut *look.looked.lock().unwrap_or_else(PoisonError::into_inner));
    match (looked, sent) {
        (Looked::Usual(seen), _) => Ok(Some(*seen)),
        (Looked::NotYet, Err(unsent)) => Err(unsent),
        _ => Ok(None),
    }
}

/// Looks at a request when it is ready, and stops it.
#[derive(Clone, Debug)]
struct Look {
    key: String,
    looked: Arc<Mutex<Looked>>,
}

#[derive(Debug, Default)]
enum Looked {
    #[default]
    NotYet,
    Unusual,
    Usual(Box<Seen>),
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
        let looked = seen.map_or(Looked::Unusual, |seen| Looked::Usual(Box::new(seen)));
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = looked;
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

/// A client whose only answer is this one, over this connection.
fn answered(answer: Result<HttpResponse, ConnectorError>, connection: CaptureSmithyConnection) -> SharedHttpClient {
    let answered = Answered { answer: Arc::new(Mutex::new(Some(answer))), connection };
    http_client_fn(move |_, _| SharedHttpConnector::new(answered.clone()))
}

#[derive(Clone, Debug)]
struct Answered {
    answer: Arc<Mutex<Option<Result<HttpResponse, ConnectorError>>>>,
    connection: CaptureSmithyConnection,
}

impl HttpConnector for Answered {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // For the SDK to have it closed where the answer is a server's error.
        if let Some(asked) = request.extension::<CaptureSmithyConnection>() {
            let connection = self.connection.clone();
            asked.set_connection_retriever(move || connection.get());
        }
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let twice = || Err(ConnectorError::other("the answer was read already".into(), None));
        HttpConnectorFuture::ready(answer.unwrap_or_else(twice))
    }
}
