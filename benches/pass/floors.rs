//! The floors: what anyone would write, and the least that reading the log objects takes with this SDK.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_config::BehaviorVersion;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, StalledStreamProtectionConfig};
use aws_sdk_s3::primitives::ByteStream;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;

use crate::server::{Fill, LOGS, OUT};

/// GETs in flight in the two loops.
const IN_FLIGHT: usize = 256;

/// Runs one of them, in this process.
pub(crate) fn run(floor: &str, arguments: &[String]) {
    let fill = || serde_json::from_str::<Fill>(&arguments[0]).expect("what another process of this program wrote");
    match floor {
        "bare" => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { get_all(&client(None).await, &fill()).await });
        }
        "tuned" => on_one_thread(async { get_all(&tuned(&client(None).await), &fill()).await }),
        "signed" => on_one_thread(async { get_all_signed(&fill()).await }),
        "naive" => on_one_thread(naive()),
        other => panic!("there is no floor {other}"),
    }
}

fn on_one_thread(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
}

/// The SDK's default client on the same HTTP client and TLS provider.
pub(crate) async fn client(endpoint: Option<&str>) -> Client {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    let loader = match endpoint {
        Some(endpoint) => loader.endpoint_url(endpoint),
        None => loader,
    };
    let config = loader.load().await;
    Client::from_conf(aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build())
}

/// Without what this program does itself or does not need.
fn tuned(client: &Client) -> Client {
    let config = client.config().to_builder();
    let config = config
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
    Client::from_conf(config.build())
}

async fn get_all(client: &Client, fill: &Fill) {
    let lengths = fill.keys().map(|key| async move {
        let object = client.get_object().bucket(LOGS).key(key).send().await.expect("a source");
        object.body.collect().await.expect("a body").into_bytes().len()
    });
    add_up(lengths, fill).await;
}

/// With the SDK's signer, but neither its operations nor its client.
async fn get_all_signed(fill: &Fill) {
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let provider = config.credentials_provider().expect("the environment names credentials");
    let identity: &Identity = &provider.provide_credentials().await.expect("they are there").into();
    let client = &legacy::Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let lengths = fill.keys().map(|key| async move {
        let answer = client.request(signed(&key, identity)).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{key}");
        answer.into_body().collect().await.expect("a body").to_bytes().len()
    });
    add_up(lengths, fill).await;
}

fn signed(key: &str, identity: &Identity) -> Request<Empty<Bytes>> {
    let endpoint = std::env::var("AWS_ENDPOINT_URL").expect("the server's");
    let host = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let uri = format!("http://{host}/{LOGS}/{key}");
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let (region, now) = (std::env::var("AWS_REGION").expect("some region"), SystemTime::now());
    let signing = SigningParams::builder().identity(identity).region(&region).name("s3").time(now).settings(settings);
    let headers = [("host", host), ("x-amz-checksum-mode", "ENABLED")];
    let signable = SignableRequest::new("GET", &*uri, headers.into_iter(), SignableBody::Bytes(b"")).expect("plain");
    let signed = sign(signable, &signing.build().expect("complete").into()).expect("it can be signed");
    let request = headers.iter().fold(Request::get(&uri), |request, (name, value)| request.header(*name, *value));
    let mut request = request.body(Empty::new()).expect("a plain request");
    signed.into_parts().0.apply_to_request_http1x(&mut request);
    request
}

/// Waits for all answers, and checks that together they are what the bucket holds.
async fn add_up(lengths: impl Iterator<Item = impl Future<Output = usize>>, fill: &Fill) {
    let lengths = stream::iter(lengths).buffer_unordered(IN_FLIGHT);
    let bytes = lengths.fold(0, async |sum, length| sum + length).await;
    assert_eq!(bytes, fill.objects * fill.size, "bytes read");
}

/// Rolls everything up, one request after the other.
async fn naive() {
    let client = client(None).await;
    for (rollup, keys) in plan(&client).await {
        roll_up(&client, &rollup, &keys).await;
    }
}

/// The keys of each rollup: the name without the time of day.
async fn plan(client: &Client) -> BTreeMap<String, Vec<String>> {
    let mut rollups = BTreeMap::<String, Vec<String>>::new();
    let mut pages = client.list_objects_v2().bucket(LOGS).prefix("logs/").into_paginator().send();
    while let Some(page) = pages.next().await {
        for object in page.expect("the bucket can be listed").contents() {
            let key = object.key().expect("an object has a key");
            let name = &key["logs/".len()..key.len() - "-hh-mm-ss-0123456789ABCDEF".len()];
            rollups.entry(format!("rollup/{name}")).or_default().push(key.to_owned());
        }
    }
    rollups
}

async fn roll_up(client: &Client, rollup: &str, keys: &[String]) {
    let mut whole = match client.get_object().bucket(OUT).key(rollup).send().await {
        Ok(object) => object.body.collect().await.expect("a body").to_vec(),
        Err(_) => Vec::new(),
    };
    for key in keys {
        let object = client.get_object().bucket(LOGS).key(key).send().await.expect("a source");
        whole.extend_from_slice(&object.body.collect().await.expect("a body").into_bytes());
    }
    let put = client.put_object().bucket(OUT).key(rollup).body(ByteStream::from(whole));
    put.send().await.expect("the rollup is written");
    for key in keys {
        client.delete_object().bucket(LOGS).key(key).send().await.expect("a source is deleted");
    }
}
