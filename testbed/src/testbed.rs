//! The handle that tests, benchmarks and the demo hold.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::net::ToSocketAddrs;

use crate::connector::Connector;
use crate::fault::{Fault, FaultKind, Gate, Moment, When};
use crate::front::Front;
use crate::object::{Object, etag_of, etag_of_copy};
use crate::policy::Policy;
use crate::request::{Operation, Recorded};
use crate::rope::Rope;
use crate::schedule::Schedule;
use crate::server::Server;
use crate::settings::{BucketOptions, Settings};
use crate::store::{Conditions, whole_seconds};
use crate::world::{World, lock};

/// An S3 server in memory. Clones are handles to the same server.
#[derive(Clone, Debug)]
pub struct Testbed {
    front: Arc<Front>,
}

impl Default for Testbed {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Testbed {
    /// A server without buckets.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { front: Arc::new(Front::new(Arc::new(World::new(settings)))) }
    }

    /// Another server with the same settings, objects, uploads and time. It has had no request, and has no fault, pause,
    /// denial or hook. Bodies are shared, so it costs little.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { front: Arc::new(Front::new(Arc::new(self.world().copy()))) }
    }

    fn world(&self) -> &World {
        &self.front.world
    }

    /// Creates a bucket without versions in the testbed's own region.
    pub fn create_bucket(&self, name: &str) {
        self.create_bucket_with(name, BucketOptions::default());
    }

    /// Creates a bucket, or changes the options of one that is there.
    pub fn create_bucket_with(&self, name: &str, options: BucketOptions) {
        self.world().store().create_bucket(name, options);
    }

    /// Puts an object without a request and returns its `ETag`, without quotes.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> String {
        self.put_with(bucket, key, body, |_| ())
    }

    /// Puts an object whose headers, tags, storage class, checksum, time or `ETag` the closure sets.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn put_with(&self, bucket: &str, key: &str, body: impl Into<Bytes>, set: impl FnOnce(&mut Object)) -> String {
        let body = Rope::from(body.into());
        let etag = etag_of(&body);
        self.put_rope(bucket, key, body, etag, set)
    }

    /// Puts an object of `chunk` `times` times over, in the memory of one chunk. Its `ETag` is not the MD5 of its bytes.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn put_virtual(&self, bucket: &str, key: &str, chunk: impl Into<Bytes>, times: usize) -> String {
        let body = Rope::repeated(chunk.into(), times);
        let etag = format!("{}-{}", etag_of_copy(&body), times.clamp(1, 10_000));
        self.put_rope(bucket, key, body, etag, |_| ())
    }

    fn put_rope(&self, bucket: &str, key: &str, body: Rope, etag: String, set: impl FnOnce(&mut Object)) -> String {
        let mut object = Object::new(body, etag, whole_seconds(self.now()));
        set(&mut object);
        let etag = object.etag.clone();
        let put = self.world().store().put(bucket, key, object);
        put.unwrap_or_else(|error| panic!("cannot put {key}: {error}"));
        etag
    }

    /// Deletes an object without a request; on a versioned bucket under a delete marker. A missing one stays missing.
    pub fn remove(&self, bucket: &str, key: &str) {
        let world = self.world();
        let mut store = world.store();
        if store.object(bucket, key).is_ok() {
            // Without a condition, and with the key just seen, there is nothing to fail.
            let _ = store.delete(bucket, key, None, Conditions::default(), &world.settings.quirks);
        }
    }

    /// The current version of an object, if it is there.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<Object> {
        self.world().store().object(bucket, key).ok().map(|object| (*object).clone())
    }

    /// All keys of a bucket, in bytewise order; none of a bucket that is not there.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.keys_under(bucket, "")
    }

    /// The keys with a prefix, in bytewise order.
    #[must_use]
    pub fn keys_under(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let store = self.world().store();
        let Some(bucket) = store.find(bucket) else { return Vec::new() };
        let keys = bucket.objects.range(prefix.to_owned()..).map(|(key, _)| key);
        keys.take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// The multipart uploads in progress: key, upload id, when it was created.
    #[must_use]
    pub fn uploads(&self, bucket: &str) -> Vec<(String, String, DateTime<Utc>)> {
        let store = self.world().store();
        let uploads = store.find(bucket).into_iter().flat_map(|bucket| &bucket.uploads);
        uploads.map(|((key, id), upload)| (key.clone(), id.clone(), upload.initiated)).collect()
    }

    /// How many versions of a key hold data: the current one and those that S3 charges for beside it.
    #[must_use]
    pub fn versions(&self, bucket: &str, key: &str) -> usize {
        self.world().store().find(bucket).map_or(0, |bucket| bucket.versions(key))
    }

    /// The server as the SDK's HTTP client, in process. Any endpoint URL will do, with path-style addresses. Its
    /// requests are recorded as those of the client of its number: the first one is 1.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(Connector::new(Arc::clone(&self.front)))
    }

    /// How many clients in process there were: the number of the one that was made last.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.front.clients.load(Ordering::Relaxed)
    }

    /// Serves on a TCP address, for example `127.0.0.1:0`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn serve(&self, address: impl ToSocketAddrs) -> io::Result<Server> {
        Server::start(Arc::clone(&self.front), address).await
    }

    /// The requests so far in the order of their arrival, those without an answer yet as well.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.front.control).requests.values().cloned().collect()
    }

    /// How many requests arrived, by operation.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Operation, u64> {
        lock(&self.front.control).counts.clone()
    }

    /// How many requests of one operation arrived.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.counts().get(&operation).copied().unwrap_or_default()
    }

    /// Forgets the requests and the counts so far.
    pub fn forget_requests(&self) {
        let mut control = lock(&self.front.control);
        control.requests.clear();
        control.counts.clear();
    }

    /// Calls `hook` with every request right after it was applied, before its answer is sent; it may look at the
    /// testbed. It replaces the hook before it.
    pub fn on_request(&self, hook: impl Fn(&Recorded) + Send + Sync + 'static) {
        lock(&self.front.control).hook = Some(Arc::new(hook));
    }

    /// Sets a fault. Of several that fit a request, the one set first meets it.
    #[expect(clippy::must_use_candidate, reason = "a fault works without its handle")]
    pub fn fault(&self, when: When, kind: FaultKind) -> Fault {
        lock(&self.front.control).faults.arm(when, kind)
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        lock(&self.front.control).faults.clear();
    }

    /// Stops the requests that fit until the gate is released.
    #[must_use = "dropping the gate releases it"]
    pub fn pause(&self, when: When, moment: Moment) -> Gate {
        lock(&self.front.control).faults.pause(when, moment)
    }

    /// Has every request wait for its turn, before it is applied and before its answer, as long as the schedule lives.
    #[must_use = "dropping the schedule lets all requests go"]
    pub fn schedule(&self) -> Schedule {
        Schedule::new(Arc::clone(&self.front))
    }

    /// As if the client died at its `count`-th request from now (1 is the next): that one is applied or not, as
    /// `moment` says, none after it is, and none is answered. Drop the client's work once [`killed`](Self::killed)
    /// resolves, then [`revive`](Self::revive).
    pub fn kill_at(&self, count: u64, moment: Moment) {
        self.front.kill_at(count, moment);
    }

    /// Waits for the request of [`kill_at`](Self::kill_at).
    pub async fn killed(&self) {
        self.front.killed().await;
    }

    /// Requests are answered again.
    pub fn revive(&self) {
        self.front.revive();
    }

    /// Denies the permission for an operation on keys with a prefix: 403 `AccessDenied`. `GetObject` covers
    /// `HeadObject`, `PutObject` the requests of multipart uploads, `DeleteObject` the keys of `DeleteObjects`
    /// (each by its own error), `ListObjectsV2` `HeadBucket`; of a listing its prefix counts as the key. Where a whole
    /// bucket may not be listed, a missing key is answered with 403.
    pub fn deny(&self, operation: Operation, bucket: &str, key_prefix: &str) {
        self.world().deny(operation, bucket, key_prefix);
    }

    /// A missing key of the bucket is answered with 403 instead of 404, though listings are allowed, as with a
    /// permission to list only some prefixes.
    pub fn hide_missing(&self, bucket: &str) {
        self.world().hide_missing(bucket);
    }

    /// Denies whatever these policies do not allow; `None` allows everything again. As on S3, a listing that is allowed
    /// for some prefixes only does not let a missing key be told from a denied one.
    pub fn allow_only(&self, policy: Option<Arc<Policy>>) {
        self.world().allow_only(policy);
    }

    /// Takes back every [`deny`](Self::deny), [`hide_missing`](Self::hide_missing) and [`allow_only`](Self::allow_only).
    pub fn allow_again(&self) {
        self.world().allow_again();
    }

    /// The server's time, which `LastModified` tells.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.world().now()
    }

    /// Stops the server's clock at a time. Signatures are checked against the system's clock all the same.
    pub fn set_now(&self, now: DateTime<Utc>) {
        self.world().set_now(Some(now));
    }
}
