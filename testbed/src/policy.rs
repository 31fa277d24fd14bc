//! IAM policies, as far as this project's own use them: what no statement allows is denied.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::request::Operation;

/// The policies of a role. Understood are statements with the effect `Allow`, actions of S3 and KMS, resources with `*`
/// and `?`, and the condition `StringLike` on `s3:prefix`; anything else is an error, not taken for harmless.
#[derive(Debug)]
pub struct Policy {
    grants: Vec<Grant>,
    used: Mutex<BTreeSet<usize>>,
}

#[derive(Clone, Debug)]
struct Grant {
    action: String,
    resource: String,
    /// One of these must match the prefix of a listing.
    prefixes: Option<Vec<String>>,
}

impl Policy {
    /// Reads policy documents, of which each is a JSON object with a `Statement`.
    ///
    /// # Errors
    /// In a sentence, where one is no JSON or holds what is not understood here.
    pub fn parse<'d>(documents: impl IntoIterator<Item = &'d str>) -> Result<Self, String> {
        let mut grants = Vec::new();
        for document in documents {
            let document: Document = serde_json::from_str(document).map_err(|error| error.to_string())?;
            if document.version != "2012-10-17" {
                return Err(format!("{} is no version of IAM's language", document.version));
            }
            for statement in document.statement {
                grants.extend(statement.grants()?);
            }
        }
        Ok(Self { grants, used: Mutex::default() })
    }

    /// The same policies without one of their permissions: an action on a resource, as [`permissions`](Self::permissions)
    /// names it.
    #[must_use]
    pub fn without(&self, permission: &str) -> Self {
        let grants = self.grants.iter().filter(|grant| grant.name() != permission).cloned().collect();
        Self { grants, used: Mutex::default() }
    }

    /// Every permission, such as `s3:GetObject on arn:aws:s3:::logs/raw/*`.
    #[must_use]
    pub fn permissions(&self) -> Vec<String> {
        self.grants.iter().map(Grant::name).collect()
    }

    /// The permissions that no request has needed so far.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = self.grants.iter().enumerate().filter(|(number, _)| !used.contains(number));
        unused.map(|(_, grant)| grant.name()).collect()
    }

    /// May this be done with a key, or with a bucket where there is none? A listing names its prefix, unless it sends none.
    pub(crate) fn allows(&self, operation: Operation, bucket: &str, key: Option<&str>, prefix: Option<&str>) -> bool {
        let Some(action) = action(operation) else { return false };
        let resource = match key {
            Some(key) => format!("{bucket}/{key}"),
            None => bucket.to_owned(),
        };
        let grant = self.grants.iter().position(|grant| grant.fits(action, &resource, prefix));
        self.used.lock().unwrap_or_else(PoisonError::into_inner).extend(grant);
        grant.is_some()
    }
}

/// The action of IAM that allows an operation (the service authorization reference of Amazon S3).
fn action(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::GetObject | Operation::HeadObject => Some("s3:GetObject"),
        Operation::GetObjectTagging => Some("s3:GetObjectTagging"),
        Operation::PutObject
        | Operation::CreateMultipartUpload
        | Operation::UploadPart
        | Operation::UploadPartCopy
        | Operation::CompleteMultipartUpload => Some("s3:PutObject"),
        Operation::DeleteObject | Operation::DeleteObjects => Some("s3:DeleteObject"),
        Operation::AbortMultipartUpload => Some("s3:AbortMultipartUpload"),
        Operation::ListObjectsV2 | Operation::HeadBucket => Some("s3:ListBucket"),
        Operation::ListMultipartUploads => Some("s3:ListBucketMultipartUploads"),
        Operation::Other => None,
    }
}

impl Grant {
    fn name(&self) -> String {
        format!("{} on {}", self.action, self.resource)
    }

    fn fits(&self, action: &str, resource: &str, prefix: Option<&str>) -> bool {
        // Partition, region and account, which S3's names leave out, are not looked at.
        let own = self.resource.splitn(6, ':').nth(5).unwrap_or_default();
        let prefixed = |patterns: &Vec<String>| {
            prefix.is_some_and(|prefix| patterns.iter().any(|pattern| is_like(prefix, pattern)))
        };
        self.action == action && is_like(resource, own) && self.prefixes.as_ref().is_none_or(prefixed)
    }
}

/// IAM's wildcards: `*` is any text, `?` any one character.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('*') => {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| is_like(&text[at..], rest.as_str()))
        }
        Some(wanted) => {
            let mut text = text.chars();
            text.next().is_some_and(|c| wanted == '?' || wanted == c) && is_like(text.as_str(), rest.as_str())
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: String,
    statement: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Sid")]
    _sid: Option<IgnoredAny>,
    effect: String,
    action: OneOrMany,
    resource: OneOrMany,
    condition: Option<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Condition {
    string_like: StringLike,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StringLike {
    #[serde(rename = "s3:prefix")]
    prefix: OneOrMany,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl Statement {
    fn grants(self) -> Result<Vec<Grant>, String> {
        if self.effect != "Allow" {
            return Err(format!("the effect {} is not understood", self.effect));
        }
        let prefixes = self.condition.map(|condition| condition.string_like.prefix.all());
        let (actions, resources) = (self.action.all(), self.resource.all());
        let each = actions.iter().flat_map(|action| resources.iter().map(move |resource| (action, resource)));
        let grants = each.map(|(action, resource)| Grant {
            action: action.clone(),
            resource: resource.clone(),
            prefixes: prefixes.clone(),
        });
        Ok(grants.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const POLICY: &str = r#"{"Version": "2012-10-17", "Statement": [
        {"Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::logs",
         "Condition": {"StringLike": {"s3:prefix": "raw/*"}}},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:DeleteObject"], "Resource": "arn:aws-cn:s3:::logs/raw/*"}]}"#;

    #[rstest]
    #[case(Operation::GetObject, Some("raw/a"), None, true)]
    #[case(Operation::HeadObject, Some("raw/"), None, true)]
    #[case(Operation::GetObject, Some("other/a"), None, false)]
    #[case(Operation::PutObject, Some("raw/a"), None, false)]
    #[case(Operation::ListObjectsV2, None, Some("raw/2026"), true)]
    #[case(Operation::ListObjectsV2, None, Some("other"), false)]
    #[case::without_a_prefix_the_condition_fails(Operation::ListObjectsV2, None, None, false)]
    #[case(Operation::ListMultipartUploads, None, Some("raw/"), false)]
    fn only_what_a_statement_allows_is_allowed(
        #[case] operation: Operation,
        #[case] key: Option<&str>,
        #[case] prefix: Option<&str>,
        #[case] allowed: bool,
    ) {
        let policy = Policy::parse([POLICY]).unwrap();
        assert_eq!(policy.allows(operation, "logs", key, prefix), allowed);
        assert!(!policy.allows(operation, "log", key, prefix), "another bucket");
    }

    #[test]
    fn a_permission_that_is_taken_away_is_gone_and_the_unused_ones_are_known() {
        let policy = Policy::parse([POLICY]).unwrap();
        assert!(policy.allows(Operation::GetObject, "logs", Some("raw/a"), None));
        let delete = "s3:DeleteObject on arn:aws-cn:s3:::logs/raw/*";
        assert_eq!(policy.unused(), ["s3:ListBucket on arn:aws:s3:::logs", delete]);
        let policy = policy.without(delete);
        assert!(!policy.allows(Operation::DeleteObject, "logs", Some("raw/a"), None));
        assert!(policy.allows(Operation::GetObject, "logs", Some("raw/a"), None));
    }

    #[rstest]
    #[case::deny(r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}"#)]
    #[case::another_condition(
        r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*",
            "Condition": {"Bool": {"aws:SecureTransport": "true"}}}]}"#
    )]
    #[case::no_json("{")]
    fn what_is_not_understood_is_an_error(#[case] document: &str) {
        assert!(Policy::parse([document]).is_err());
    }
}
