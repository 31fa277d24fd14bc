//! Buckets of the server that the environment names.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::Failure;
use crate::arguments::Arguments;

/// Requests in flight.
const IN_FLIGHT: usize = 32;

/// The environment's endpoint, region and keys.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) endpoint: String,
    pub(crate) region: Region,
    pub(crate) credentials: Credentials,
}

impl Environment {
    pub(crate) fn read() -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let needed = |name| variable(name).ok_or_else(|| Failure::Usage(format!("{name} is not set")));
        let (key, secret) = (needed("AWS_ACCESS_KEY_ID")?, needed("AWS_SECRET_ACCESS_KEY")?);
        Ok(Self {
            endpoint: needed("AWS_ENDPOINT_URL")?,
            region: Region::new(variable("AWS_REGION").unwrap_or_else(|| String::from("us-east-1"))),
            credentials: Credentials::new(key, secret, variable("AWS_SESSION_TOKEN"), None, "environment"),
        })
    }
}

/// HTTP and HTTPS.
pub(crate) fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

fn client() -> Result<Client, Failure> {
    let environment = Environment::read()?;
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(environment.region)
        .endpoint_url(environment.endpoint)
        .credentials_provider(environment.credentials)
        .force_path_style(true)
        .http_client(http_client());
    Ok(Client::from_conf(config.build()))
}

/// What went wrong, with all its causes in their own words.
pub(crate) fn failed(what: impl std::fmt::Display, error: &dyn std::error::Error) -> Failure {
    let causes = std::iter::successors(Some(error), |error| error.source());
    Failure::Failed(causes.fold(what.to_string(), |told, cause| format!("{told}: {cause}")))
}

/// Makes the buckets that are not there.
pub(crate) async fn make(arguments: &Arguments) -> Result<(), Failure> {
    let client = client()?;
    for bucket in arguments.rest() {
        match client.create_bucket().bucket(bucket).send().await {
            Ok(_) => println!("{bucket}: made"),
            Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => println!("{bucket}: there already"),
            Err(error) => return Err(failed(format!("{bucket} cannot be made"), &error)),
        }
    }
    Ok(())
}

/// Prints what is there.
pub(crate) async fn list(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::parse(arguments.only("S3 URL")?, &client()?)?;
    for (key, size) in place.list("").await? {
        println!("{size:>12}  {key}");
    }
    Ok(())
}

/// A bucket and a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    client: Client,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

impl Place {
    /// `s3://bucket/prefix` on the environment's server.
    pub(crate) fn named(url: &str) -> Result<Self, Failure> {
        Self::parse(url, &client()?)
    }

    /// `s3://bucket/prefix` as seen by a client.
    pub(crate) fn parse(url: &str, client: &Client) -> Result<Self, Failure> {
        let path = url.strip_prefix("s3://").ok_or_else(|| Failure::Usage(format!("{url} is not s3://bucket/…")))?;
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        Ok(Self { client: client.clone(), bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// The keys below the prefix that go on with `more`, and their sizes in bytes.
    pub(crate) async fn list(&self, more: &str) -> Result<Vec<(String, i64)>, Failure> {
        let prefix = format!("{}{more}", self.prefix);
        let pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let pages = pages.try_collect().await;
        let pages = pages.map_err(|error| failed(format!("{} cannot be listed", self.bucket), &error))?;
        let objects = pages.into_iter().flat_map(|page| page.contents.unwrap_or_default());
        Ok(objects.map(|it| (it.key.unwrap_or_default(), it.size.unwrap_or_default())).collect())
    }

    /// The bytes of these keys; those that are gone are left out.
    pub(crate) async fn get(&self, keys: Vec<String>) -> Result<Vec<(String, Bytes)>, Failure> {
        let gets = keys.into_iter().map(async |key| {
            let told = |error: &dyn std::error::Error| failed(format!("{}/{key} cannot be read", self.bucket), error);
            match self.client.get_object().bucket(&self.bucket).key(&key).send().await {
                Ok(object) => {
                    let body = object.body.collect().await.map_err(|error| told(&error))?.into_bytes();
                    Ok(Some((format!("{}/{key}", self.bucket), body)))
                }
                Err(error) if error.code() == Some("NoSuchKey") => Ok(None),
                Err(error) => Err(told(&error)),
            }
        });
        stream::iter(gets).buffered(IN_FLIGHT).try_filter_map(|found| async { Ok(found) }).try_collect().await
    }

    /// Puts objects.
    pub(crate) async fn put(&self, objects: impl IntoIterator<Item = (String, Bytes)>) -> Result<(), Failure> {
        let puts = objects.into_iter().map(async |(key, body)| {
            let put = self.client.put_object().bucket(&self.bucket).key(&key).body(body.into()).send().await;
            put.map(drop).map_err(|error| failed(format!("{}/{key} cannot be put", self.bucket), &error))
        });
        stream::iter(puts).buffer_unordered(IN_FLIGHT).try_collect::<Vec<()>>().await.map(drop)
    }
}
