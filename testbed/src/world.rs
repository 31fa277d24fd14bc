//! What the server knows: the buckets, the time, and who may not do what.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use s3s::{S3ErrorCode, S3Result};

use crate::object::Object;
use crate::policy::Policy;
use crate::request::Operation;
use crate::settings::Settings;
use crate::store::{Store, access_denied};

#[derive(Clone, Debug)]
struct Denial {
    permission: Operation,
    bucket: String,
    key_prefix: String,
}

/// The state that requests read and change.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    store: Mutex<Store>,
    clock: Mutex<Option<DateTime<Utc>>>,
    denials: Mutex<Vec<Denial>>,
    hiding: Mutex<BTreeSet<String>>,
    policy: Mutex<Option<Arc<Policy>>>,
}

/// A test that panicked with the lock must not make the others fail with a poisoned one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            store: Mutex::default(),
            clock: Mutex::default(),
            denials: Mutex::default(),
            hiding: Mutex::default(),
            policy: Mutex::default(),
        }
    }

    /// Another world with the same settings, objects, uploads and time, in which everything is allowed.
    pub(crate) fn copy(&self) -> Self {
        let clock = *lock(&self.clock);
        let store = Mutex::new(self.store().clone());
        Self { store, clock: Mutex::new(clock), ..Self::new(self.settings.clone()) }
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        lock(&self.clock).unwrap_or_else(Utc::now)
    }

    pub(crate) fn set_now(&self, now: Option<DateTime<Utc>>) {
        *lock(&self.clock) = now;
    }

    pub(crate) fn deny(&self, operation: Operation, bucket: &str, key_prefix: &str) {
        let denial =
            Denial { permission: operation.permission(), bucket: bucket.to_owned(), key_prefix: key_prefix.to_owned() };
        lock(&self.denials).push(denial);
    }

    pub(crate) fn allow_again(&self) {
        lock(&self.denials).clear();
        lock(&self.hiding).clear();
        lock(&self.policy).take();
    }

    pub(crate) fn allow_only(&self, policy: Option<Arc<Policy>>) {
        *lock(&self.policy) = policy;
    }

    /// Whether an operation on a key, or on a bucket where there is none, is denied. A listing names its prefix.
    pub(crate) fn denies(&self, operation: Operation, bucket: &str, key: Option<&str>, prefix: Option<&str>) -> bool {
        let policy = lock(&self.policy).clone();
        let text = key.or(prefix).unwrap_or_default();
        policy.is_some_and(|policy| !policy.allows(operation, bucket, key, prefix))
            || lock(&self.denials).iter().any(|denial| {
                denial.permission == operation.permission()
                    && denial.bucket == bucket
                    && text.starts_with(&denial.key_prefix)
            })
    }

    pub(crate) fn hide_missing(&self, bucket: &str) {
        lock(&self.hiding).insert(bucket.to_owned());
    }

    /// The object of a read. A key that is not there is told from a denied one only to who may list the bucket.
    pub(crate) fn find(&self, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Arc<Object>> {
        let found = self.store().version(bucket, key, version);
        let hides = || lock(&self.hiding).contains(bucket) || self.denies(Operation::ListObjectsV2, bucket, None, None);
        found.map_err(|error| if *error.code() == S3ErrorCode::NoSuchKey && hides() { access_denied() } else { error })
    }

    pub(crate) fn region_of(&self, bucket: &str) -> Option<String> {
        let store = self.store();
        let options = &store.find(bucket)?.options;
        Some(options.region.clone().unwrap_or_else(|| self.settings.region.clone()))
    }
}
