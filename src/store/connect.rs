//! The SDK's configuration: credentials, region, endpoint, TLS roots, proxy. The environment variables read here are
//! the SDK's own.

use std::path::Path;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, retry::RetryConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::bounded::BoundedAnswers;
use super::whole::WholeDocuments;
use crate::error::Error;
use crate::shown::shown;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long looking for credentials may take: the instance's metadata service is the slowest, and it gives up sooner.
const CREDENTIALS: Duration = Duration::from_secs(20);

/// The SDK's configuration from the environment and the profile files.
///
/// # Errors
/// When `AWS_CA_BUNDLE` cannot be read, or no credentials are found.
pub async fn sdk_config() -> Result<SdkConfig, Error> {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client()?)
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
        .load()
        .await;
    let config = if config.region().is_none() {
        // S3 answers in any region where the bucket really is, and that goes into the error.
        config.into_builder().region(Region::from_static("us-east-1")).build()
    } else {
        config
    };
    look_for_credentials(&config).await?;
    Ok(config)
}

/// Asks once at the start: a request would say less, and later.
async fn look_for_credentials(config: &SdkConfig) -> Result<(), Error> {
    let provider = config.credentials_provider().ok_or(Error::NoCredentials(String::from("no provider")))?;
    match tokio::time::timeout(CREDENTIALS, provider.provide_credentials()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            let whys = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            // The SDK gives a provider a line.
            let whys = whys.lines().map(str::trim).collect::<Vec<_>>().join("; ");
            let login = log_in_again(&whys).unwrap_or_default();
            Err(Error::NoCredentials(shown(&whys).to_string() + &login))
        }
        Err(_) => Err(Error::NoCredentials(format!("none after {} s", CREDENTIALS.as_secs()))),
    }
}

/// What helps where a profile with SSO gave no credentials. The SDK's types do not tell these errors apart.
fn log_in_again(whys: &str) -> Option<String> {
    let sso = ["SSO token", "/sso/cache/", "UnauthorizedException"].iter().any(|sign| whys.contains(sign));
    let profile = std::env::var("AWS_PROFILE").ok().filter(|profile| !profile.is_empty());
    let profile = profile.map(|profile| format!(" --profile {profile}")).unwrap_or_default();
    sso.then(|| format!("; run `aws sso login{profile}`"))
}

/// The S3 client on top of it: this program retries and watches the clock itself, since a retry
/// of the SDK covers neither a body that breaks nor more than its token bucket allows.
#[must_use]
pub fn client(sdk: &SdkConfig, path_style: bool) -> Client {
    let config = aws_sdk_s3::config::Builder::from(sdk)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .force_path_style(path_style)
        .interceptor(BoundedAnswers)
        .interceptor(WholeDocuments)
        .build();
    Client::from_conf(config)
}

/// HTTPS with ring, the proxy of `HTTPS_PROXY` and `NO_PROXY`, and the roots of `AWS_CA_BUNDLE` where it is set.
fn http_client() -> Result<SharedHttpClient, Error> {
    let roots = match std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        None => TrustStore::default(),
        Some(path) => ca_bundle(Path::new(&path))
            .map_err(|why| Error::CaBundle { path: path.to_string_lossy().into_owned(), why })?,
    };
    let context = TlsContext::builder()
        .with_trust_store(roots)
        .build()
        .map_err(|error| Error::CaBundle { path: String::from("the TLS roots"), why: error.to_string() })?;
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone());
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.build()
    });
    Ok(SharedHttpClient::new(Naming(client)))
}

/// The certificates of a PEM file. The connector takes them unchecked, and panics later at one that it cannot use.
fn ca_bundle(path: &Path) -> Result<TrustStore, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(&pem)) {
        let certificate = certificate.map_err(|error| format!("it is damaged: {error}"))?;
        roots.add(certificate).map_err(|error| format!("its certificate {number} is of no use: {error}"))?;
    }
    if roots.is_empty() {
        return Err(String::from("it holds no PEM certificate"));
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

/// A request that was not answered.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}")]
pub(super) struct Unanswered {
    /// Where it went to: scheme, host and port.
    endpoint: String,
    source: BoxError,
}

/// Names the endpoint in the errors of its connectors, which do not say it: a proxy, a profile or a variable may have
/// sent the request elsewhere than one thinks.
#[derive(Debug)]
struct Naming<T>(T);

impl HttpClient for Naming<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Naming(self.0.http_connector(settings, components)))
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.0.connector_metadata()
    }
}

impl HttpConnector for Naming<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let uri = request.uri();
        let end = uri.find("://").and_then(|scheme| uri[scheme + 3..].find(['/', '?']).map(|at| scheme + 3 + at));
        let endpoint = uri[..end.unwrap_or(uri.len())].to_owned();
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move { answer.await.map_err(|error| name(error, endpoint)) })
    }
}

/// The same error, of the same kind, with its endpoint.
fn name(error: ConnectorError, endpoint: String) -> ConnectorError {
    let connection = error.connection_metadata().cloned();
    let (timeout, io, user, other) = (error.is_timeout(), error.is_io(), error.is_user(), error.as_other());
    let source = Box::new(Unanswered { endpoint, source: error.into_source() });
    let error = match (timeout, io, user) {
        (true, _, _) => ConnectorError::timeout(source),
        (_, true, _) => ConnectorError::io(source),
        (_, _, true) => ConnectorError::user(source),
        _ => ConnectorError::other(source, other),
    };
    match connection {
        Some(connection) => error.with_connection(connection),
        None => error,
    }
}
