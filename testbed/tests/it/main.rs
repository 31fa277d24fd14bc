//! The testbed through the SDK: what Amazon S3 is documented to do, and every fault.

mod conditions;
mod faults;
mod multipart;
mod objects;
mod schedule;
mod serving;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{Credentials, Region, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use testbed::{SECRET_KEY, Testbed};

fn client(bed: &Testbed) -> Client {
    client_in(bed, "us-east-1")
}

/// A client that signs for a region and never tries again.
fn client_in(bed: &Testbed, region: &'static str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version_latest()
        .region(Region::new(region))
        .credentials_provider(Credentials::new("any", SECRET_KEY, None, None, "test"))
        .endpoint_url("http://testbed")
        .force_path_style(true)
        .http_client(bed.http_client())
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    Client::from_conf(config.build())
}

/// A testbed with the bucket `logs`, and its client.
fn logs() -> (Testbed, Client) {
    let bed = Testbed::default();
    bed.create_bucket("logs");
    let client = client(&bed);
    (bed, client)
}

/// How a request was answered: `200`, or the status and the code of the error; `0` where the connection broke.
fn told<T, E: ProvideErrorMetadata>(result: Result<T, SdkError<E>>) -> (u16, String) {
    match result {
        Ok(_) => (200, String::new()),
        Err(error) => {
            let status = error.raw_response().map_or(0, |response| response.status().as_u16());
            let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
            (status, code.unwrap_or_default().to_owned())
        }
    }
}

fn answer(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The bytes that a GET brings, or nothing where they cannot be read to the end.
async fn get(client: &Client, key: &str) -> Option<Vec<u8>> {
    let found = client.get_object().bucket("logs").key(key).send().await.ok()?;
    Some(found.body.collect().await.ok()?.to_vec())
}

async fn put(client: &Client, key: &str, body: &'static str) -> String {
    let body = ByteStream::from_static(body.as_bytes());
    let done = client.put_object().bucket("logs").key(key).body(body).send().await.expect("the put succeeds");
    done.e_tag.expect("a put answers with an ETag")
}
