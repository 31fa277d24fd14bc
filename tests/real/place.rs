//! Two buckets on the server under test, filled and looked at with the SDK, and a ledger of every line.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::operation::get_object::GetObjectError;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use testbed::{Generator, Ledger, Spec};

/// Requests in flight while a test fills or reads a bucket.
const IN_FLIGHT: usize = 32;
/// Where the rollups go.
pub(crate) const DESTINATION: &str = "rollup/";
/// Where the log objects are.
pub(crate) const SOURCE: &str = "logs/";

/// The server under test.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) endpoint: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) region: String,
}

impl Server {
    /// The one that the environment names. Without one it says so past libtest's capture, which would hide it.
    pub(crate) fn given() -> Option<Self> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let Some(endpoint) = variable("REAL_S3_ENDPOINT") else {
            writeln!(io::stderr(), "skipped: REAL_S3_ENDPOINT is not set; run tests/real-servers").expect("stderr");
            return None;
        };
        let needed = |name| variable(name).unwrap_or_else(|| panic!("REAL_S3_ENDPOINT is set, so set {name}, too"));
        Some(Self {
            name: variable("REAL_S3_NAME").unwrap_or_else(|| String::from("server")),
            endpoint,
            access_key: needed("AWS_ACCESS_KEY_ID"),
            secret_key: needed("AWS_SECRET_ACCESS_KEY"),
            region: variable("AWS_REGION").unwrap_or_else(|| String::from("us-east-1")),
        })
    }

    pub(crate) fn client(&self) -> Client {
        let credentials = Credentials::new(&self.access_key, &self.secret_key, None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .endpoint_url(&self.endpoint)
            .credentials_provider(credentials)
            .force_path_style(true)
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        Client::from_conf(config.build())
    }
}

/// Of everything that is left to chance: `SEED`, or a fresh one.
pub(crate) fn seed() -> u64 {
    let given = env::var("SEED").ok().filter(|seed| !seed.is_empty());
    given.map_or_else(|| fastrand::u64(..1_000_000), |seed| seed.parse().expect("SEED is a number"))
}

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) etag: String,
    pub(crate) size: u64,
}

/// Two buckets of a test's own.
pub(crate) struct Place {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) logs: String,
    pub(crate) rollups: String,
    pub(crate) ledger: Ledger,
    pub(crate) generator: Generator,
}

/// A bucket name that nobody has.
pub(crate) fn fresh_name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    format!("{what}-{now:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Place {
    /// Both buckets, empty; `None` where no server is given.
    pub(crate) async fn new() -> Option<Self> {
        let server = Server::given()?;
        let client = server.client();
        let (logs, rollups) = (fresh_name("logs"), fresh_name("rollups"));
        for bucket in [&logs, &rollups] {
            client.create_bucket().bucket(bucket).send().await.expect("a bucket is created");
        }
        Some(Self { server, client, logs, rollups, ledger: Ledger::new(), generator: Generator::new(1) })
    }

    /// Puts generated log objects under `logs/`, with their lines into the ledger.
    pub(crate) async fn fill(&mut self, spec: &Spec) -> BTreeMap<String, Bytes> {
        let objects = self.announce(std::slice::from_ref(spec));
        self.send(&objects).await;
        objects
    }

    /// Generates log objects, with their lines into the ledger, that are still to be [sent](Self::send).
    pub(crate) fn announce(&mut self, specs: &[Spec]) -> BTreeMap<String, Bytes> {
        let mut objects = BTreeMap::new();
        for spec in specs {
            objects.extend(self.generator.objects(&Spec { prefix: SOURCE.to_owned(), ..spec.clone() }));
        }
        self.enter(&objects);
        objects
    }

    fn enter(&mut self, objects: &BTreeMap<String, Bytes>) {
        for (key, body) in objects {
            self.ledger.put(&self.logs, key, body);
        }
    }

    /// Puts these log objects.
    pub(crate) async fn put_logs(&mut self, objects: &BTreeMap<String, Bytes>) {
        self.enter(objects);
        self.send(objects).await;
    }

    /// Puts log objects whose lines are in the ledger.
    pub(crate) async fn send(&self, objects: &BTreeMap<String, Bytes>) {
        let puts = objects.iter().map(async |(key, body)| {
            let put = self.client.put_object().bucket(&self.logs).key(key).body(body.clone().into());
            put.send().await.unwrap_or_else(|error| panic!("{key} is put: {error:?}"));
        });
        stream::iter(puts).buffer_unordered(IN_FLIGHT).collect::<Vec<_>>().await;
    }

    pub(crate) async fn list(&self, bucket: &str, prefix: &str) -> Vec<Listed> {
        let pages = self.client.list_objects_v2().bucket(bucket).prefix(prefix).into_paginator().send();
        let pages = pages.try_collect().await.expect("the bucket is listed");
        let objects = pages.into_iter().flat_map(|page| page.contents.unwrap_or_default());
        let listed = |object: aws_sdk_s3::types::Object| Listed {
            key: object.key.expect("a key"),
            etag: object.e_tag.expect("an ETag"),
            size: object.size.and_then(|size| size.try_into().ok()).expect("a size"),
        };
        objects.map(listed).collect()
    }

    /// Everything in both buckets.
    pub(crate) async fn everything(&self) -> (Vec<Listed>, Vec<Listed>) {
        (self.list(&self.logs, "").await, self.list(&self.rollups, "").await)
    }

    /// The keys of the log objects that are there.
    pub(crate) async fn sources(&self) -> Vec<String> {
        self.list(&self.logs, SOURCE).await.into_iter().map(|object| object.key).collect()
    }

    /// The keys of the rollups, without the manifests.
    pub(crate) async fn rollups(&self) -> Vec<String> {
        let keys = self.list(&self.rollups, DESTINATION).await.into_iter().map(|object| object.key);
        keys.filter(|key| !key[DESTINATION.len()..].starts_with('_')).collect()
    }

    /// The keys of manifests and probes.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let keys = self.list(&self.rollups, &format!("{DESTINATION}_")).await;
        keys.into_iter().map(|object| object.key).collect()
    }

    /// The keys of unfinished uploads.
    pub(crate) async fn uploads(&self) -> Vec<String> {
        let uploads = self.client.list_multipart_uploads().bucket(&self.rollups).send().await;
        let uploads = uploads.expect("the uploads are listed").uploads.unwrap_or_default();
        uploads.into_iter().filter_map(|upload| upload.key).collect()
    }

    pub(crate) async fn get(&self, bucket: &str, key: &str) -> Bytes {
        let object = self.client.get_object().bucket(bucket).key(key).send().await;
        let object = object.unwrap_or_else(|error| panic!("{key} is read: {error:?}"));
        object.body.collect().await.expect("the whole body").into_bytes()
    }

    async fn get_all(&self, bucket: &str, keys: Vec<String>) -> Vec<(String, Bytes)> {
        let gets = keys.into_iter().map(async |key| {
            let body = self.get(bucket, &key).await;
            (key, body)
        });
        stream::iter(gets).buffered(IN_FLIGHT).collect().await
    }

    /// Every line is in a rollup or in a source that is left, exactly once.
    pub(crate) async fn once(&self) {
        let mut objects = self.get_all(&self.rollups, self.rollups().await).await;
        objects.extend(self.get_all(&self.logs, self.sources().await).await);
        if let Err(imbalance) = self.ledger.check(objects) {
            panic!("{}: {imbalance}", self.server.name);
        }
    }

    /// Every line is in a rollup exactly once, whatever sources there are.
    pub(crate) async fn once_in_rollups(&self) {
        if let Err(imbalance) = self.ledger.check(self.get_all(&self.rollups, self.rollups().await).await) {
            panic!("{}: {imbalance}", self.server.name);
        }
    }

    /// A pass that nobody disturbed leaves no source, no manifest, no probe and no upload, and each line once.
    pub(crate) async fn finished(&self) {
        assert_eq!(self.sources().await, [""; 0], "sources are left");
        self.clean().await;
        self.once().await;
    }

    /// After a pass that followed killed ones there is no source and no manifest, and each line once.
    pub(crate) async fn settled(&self) {
        assert_eq!(self.sources().await, [""; 0], "sources are left");
        // A killed pass leaves its own probe and uploads behind, which nobody can tell from those of a running one.
        let manifests = self.leftovers().await.into_iter().filter(|key| !key.contains("/_probe"));
        assert_eq!(manifests.collect::<Vec<_>>(), [""; 0], "manifests are left");
        self.once().await;
    }

    /// Between passes: no line is lost, and none is in the rollups twice, though it may still be in its source as well.
    pub(crate) async fn nothing_lost(&self) {
        // The sources first: lines go from them into rollups. A delete of a killed pass may still be on its way.
        let mut sources = Vec::new();
        for key in self.sources().await {
            let object = self.client.get_object().bucket(&self.logs).key(&key).send().await;
            match object {
                Ok(object) => sources.push((key, object.body.collect().await.expect("the whole body").into_bytes())),
                Err(error) => {
                    assert!(error.as_service_error().is_some_and(GetObjectError::is_no_such_key), "{error:?}");
                }
            }
        }
        let rollups = self.get_all(&self.rollups, self.rollups().await).await;
        let found = [
            self.ledger.check(rollups.clone()).err().filter(|found| found.doubled + found.unknown > 0),
            self.ledger.check(rollups.into_iter().chain(sources)).err().filter(|found| found.lost + found.unknown > 0),
        ];
        if let Some(imbalance) = found.into_iter().flatten().next() {
            panic!("{}: {imbalance}", self.server.name);
        }
    }

    /// No manifest, no probe, no upload is left.
    pub(crate) async fn clean(&self) {
        assert_eq!(self.leftovers().await, [""; 0], "manifests or probes are left");
        assert_eq!(self.uploads().await, [""; 0], "uploads are left");
    }
}
