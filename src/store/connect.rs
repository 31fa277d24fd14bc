//! The SDK's configuration: credentials, region, endpoint, TLS roots, proxy. The environment variables read here are
//! the SDK's own.

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
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::whole::WholeDocuments;
use crate::error::Error;

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
            let whys: Vec<_> = chain.map(ToString::to_string).collect();
            Err(Error::NoCredentials(whys.join(": ")))
        }
        Err(_) => Err(Error::NoCredentials(format!("none after {} s", CREDENTIALS.as_secs()))),
    }
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
        .interceptor(WholeDocuments)
        .build();
    Client::from_conf(config)
}

/// HTTPS with ring, the proxy of `HTTPS_PROXY` and `NO_PROXY`, and the roots of `AWS_CA_BUNDLE` where it is set.
fn http_client() -> Result<SharedHttpClient, Error> {
    let roots = match std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        None => TrustStore::default(),
        Some(path) => {
            let unreadable = |why: String| Error::CaBundle { path: path.to_string_lossy().into_owned(), why };
            let pem = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
            if !pem.windows(11).any(|window| window == b"-----BEGIN ") {
                return Err(unreadable(String::from("it holds no PEM certificate")));
            }
            TrustStore::empty().with_pem_certificate(pem)
        }
    };
    let context = TlsContext::builder()
        .with_trust_store(roots)
        .build()
        .map_err(|error| Error::CaBundle { path: String::from("the TLS roots"), why: error.to_string() })?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone());
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.build()
    }))
}
