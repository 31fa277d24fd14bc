//! Deletes, one object or many.

use std::collections::{BTreeMap, HashSet};

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use tokio::time::Instant;

use super::{ATTEMPT, ATTEMPTS, Failure, Kind, Operation, Store, pause};
use crate::source::{ETag, Source};

/// Keys of one `DeleteObjects`. S3 takes 1,000, and counts each as a write: smaller batches avoid storms of `SlowDown`.
pub const DELETE_KEYS: usize = 250;

/// A key that `DeleteObjects` did not confirm as gone.
#[derive(Clone, Debug)]
pub struct NotDeleted {
    /// Its place in the request.
    pub at: usize,
    /// Why.
    pub failure: Failure,
}

impl Store {
    /// Deletes an object, with a tag only if it still has it; one that is gone already is as good.
    pub async fn delete(&self, key: &str, etag: Option<&ETag>) -> Result<(), Failure> {
        let deleted = self
            .ask(Operation::DeleteObject, Some(key), ATTEMPT, async || {
                let request = self.client.delete_object().bucket(&*self.bucket).key(key);
                let deleted = request.set_if_match(etag.map(ETag::quoted)).send().await;
                deleted.map_err(|e| self.failure(e, Operation::DeleteObject, Some(key)))
            })
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == Kind::Missing => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Deletes up to [`DELETE_KEYS`] objects, each only if it still has its tag, and returns those that S3 did not
    /// confirm as gone. Keys that S3 throttled or failed on are asked for again.
    pub async fn delete_all(&self, sources: &[&Source]) -> Result<Vec<NotDeleted>, Failure> {
        let mut asked: Vec<usize> = (0..sources.len()).collect();
        let mut refused = Vec::new();
        for attempt in 1.. {
            let batch: Vec<&Source> = asked.iter().map(|at| sources[*at]).collect();
            let answers = self.delete_once(&batch).await?;
            let (again, last): (Vec<_>, Vec<_>) =
                answers.into_iter().map(|n| NotDeleted { at: asked[n.at], ..n }).partition(|n| n.failure.transient());
            refused.extend(last);
            if again.is_empty() || attempt == ATTEMPTS {
                refused.extend(again);
                break;
            }
            asked = again.iter().map(|n| n.at).collect();
            pause(attempt).await;
        }
        Ok(refused)
    }

    async fn delete_once(&self, sources: &[&Source]) -> Result<Vec<NotDeleted>, Failure> {
        let operation = Operation::DeleteObjects;
        let since = Instant::now();
        let answer = self
            .ask_of((operation, None), Some(sources.len()), ATTEMPT, async || {
                let objects = sources.iter().map(|source| {
                    let object = ObjectIdentifier::builder().key(&*source.key).e_tag(source.etag.quoted());
                    object.build().expect("it has a key")
                });
                let objects = Delete::builder().set_objects(Some(objects.collect())).build().expect("it has objects");
                let request = self.client.delete_objects().bucket(&*self.bucket).delete(objects);
                request.send().await.map_err(|e| self.failure(e, operation, None))
            })
            .await?;
        let gone: HashSet<&str> = answer.deleted().iter().filter_map(|gone| gone.key()).collect();
        let errors: BTreeMap<&str, _> =
            answer.errors().iter().filter_map(|error| Some((error.key()?, error))).collect();
        let not_deleted = sources.iter().enumerate().filter_map(|(at, source)| {
            let key = Some(&*source.key);
            let failure = match errors.get(&*source.key) {
                None if gone.contains(&*source.key) => return None,
                None => self.broken(Kind::NoAnswer, operation, key, "the answer does not name the key"),
                Some(error) => match error.code().unwrap_or_default() {
                    "NoSuchKey" => return None,
                    code => {
                        let what = format!("{code}: {}", error.message().unwrap_or_default());
                        self.broken(per_key_kind(code), operation, key, &what)
                    }
                },
            };
            Some(NotDeleted { at, failure })
        });
        let not_deleted: Vec<_> = not_deleted.collect();
        // S3 may as well say of each key alone that there are too many.
        if not_deleted.iter().any(|not| not.failure.kind == Kind::Throttled) {
            self.traffic.deletes.throttled(since);
        }
        Ok(not_deleted)
    }
}

fn per_key_kind(code: &str) -> Kind {
    match code {
        "AccessDenied" => Kind::Denied,
        "PreconditionFailed" => Kind::Condition,
        "SlowDown" => Kind::Throttled,
        "InternalError" => Kind::Server,
        _ => Kind::Refused,
    }
}
