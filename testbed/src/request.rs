//! What a request is: its operation, bucket and key, told from the HTTP request alone, and the record that is kept.

use std::fmt;

use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Method, Uri};
use percent_encoding::percent_decode_str;

/// The S3 operations that the testbed tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named as in S3's API reference")]
pub enum Operation {
    GetObject,
    HeadObject,
    PutObject,
    DeleteObject,
    DeleteObjects,
    ListObjectsV2,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListMultipartUploads,
    GetObjectTagging,
    HeadBucket,
    /// Any other request.
    Other,
}

impl fmt::Display for Operation {
    /// The name in S3's API reference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Operation {
    /// Whether S3 counts it among the writes of a partition (PUT, COPY, POST, DELETE).
    #[must_use]
    pub fn is_write(self) -> bool {
        !matches!(
            self,
            Self::GetObject
                | Self::HeadObject
                | Self::ListObjectsV2
                | Self::ListMultipartUploads
                | Self::GetObjectTagging
                | Self::HeadBucket
        )
    }

    /// The operation whose IAM permission covers this one: `HeadObject` needs `s3:GetObject`, and so on.
    #[must_use]
    pub fn permission(self) -> Self {
        match self {
            Self::HeadObject => Self::GetObject,
            Self::CreateMultipartUpload | Self::UploadPart | Self::UploadPartCopy | Self::CompleteMultipartUpload => {
                Self::PutObject
            }
            Self::DeleteObjects => Self::DeleteObject,
            Self::HeadBucket => Self::ListObjectsV2,
            other => other,
        }
    }

    fn of(method: &Method, query: &Query<'_>, headers: &HeaderMap, has_key: bool) -> Self {
        let upload = query.has("uploadId");
        match (method.as_str(), has_key) {
            ("GET", true) if query.has("tagging") => Self::GetObjectTagging,
            ("GET", true) if !upload && !query.has("acl") && !query.has("attributes") => Self::GetObject,
            ("HEAD", true) => Self::HeadObject,
            ("PUT", true) if upload && headers.contains_key("x-amz-copy-source") => Self::UploadPartCopy,
            ("PUT", true) if upload => Self::UploadPart,
            ("PUT", true) if !query.has("tagging") && !headers.contains_key("x-amz-copy-source") => Self::PutObject,
            ("POST", true) if query.has("uploads") => Self::CreateMultipartUpload,
            ("POST", true) if upload => Self::CompleteMultipartUpload,
            ("DELETE", true) if upload => Self::AbortMultipartUpload,
            ("DELETE", true) if !query.has("tagging") => Self::DeleteObject,
            ("POST", false) if query.has("delete") => Self::DeleteObjects,
            ("GET", false) if query.get("list-type").as_deref() == Some("2") => Self::ListObjectsV2,
            ("GET", false) if query.has("uploads") => Self::ListMultipartUploads,
            ("HEAD", false) => Self::HeadBucket,
            _ => Self::Other,
        }
    }
}

/// The query of a URL.
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Self {
        Self(uri.query().unwrap_or_default())
    }

    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs().any(|(key, _)| key == name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let (_, value) = self.pairs().find(|(key, _)| *key == name)?;
        Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
    }
}

/// One request, as the testbed saw and answered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its number, from 1, in the order of arrival.
    pub seq: u64,
    /// Which client in process sent it: the first one that was made is 1. 0 over TCP.
    pub client: u64,
    /// The operation.
    pub operation: Operation,
    /// The bucket, decoded.
    pub bucket: Option<String>,
    /// The key, decoded.
    pub key: Option<String>,
    /// The keys of `DeleteObjects`.
    pub keys: Vec<String>,
    /// The prefix of a listing.
    pub prefix: Option<String>,
    /// The HTTP status that was sent; none where no answer was.
    pub status: Option<u16>,
    /// Whether S3 did what was asked: answered with success, had nothing stood between. An answer may still be
    /// lost or replaced, see `status`.
    pub applied: bool,
    /// The length of the request's body in bytes, as its header says.
    pub bytes_in: u64,
    /// The length of the answer's body in bytes, as its header says.
    pub bytes_out: u64,
    /// It numbers its attempt, as every request does that an SDK sends itself.
    pub numbered: bool,
}

impl Recorded {
    pub(crate) fn of(seq: u64, request: &Parts) -> Self {
        let path = percent_decode_str(request.uri.path()).decode_utf8_lossy().into_owned();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let (bucket, key) = match path.split_once('/') {
            Some((bucket, key)) => (bucket.to_owned(), Some(key.to_owned()).filter(|key| !key.is_empty())),
            None => (path.to_owned(), None),
        };
        let query = Query::of(&request.uri);
        let length = |name| number(&request.headers, name);
        Self {
            seq,
            client: 0,
            operation: match bucket.as_str() {
                "" => Operation::Other,
                _ => Operation::of(&request.method, &query, &request.headers, key.is_some()),
            },
            bucket: Some(bucket).filter(|bucket| !bucket.is_empty()),
            key,
            keys: Vec::new(),
            prefix: query.get("prefix"),
            status: None,
            applied: false,
            bytes_in: length("x-amz-decoded-content-length").or_else(|| length("content-length")).unwrap_or_default(),
            bytes_out: 0,
            numbered: request.headers.contains_key("amz-sdk-invocation-id"),
        }
    }

    /// The key, and the keys of `DeleteObjects`.
    pub fn all_keys(&self) -> impl Iterator<Item = &str> {
        self.key.iter().chain(&self.keys).map(String::as_str)
    }
}

pub(crate) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The region that a request is signed for: `Credential=key/date/REGION/s3/aws4_request`.
pub(crate) fn signed_region(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get("authorization")?.to_str().ok()?;
    authorization.split_once("Credential=")?.1.split('/').nth(2)
}

/// The keys that the body of `DeleteObjects` names.
pub(crate) fn keys_to_delete(body: &str) -> Vec<String> {
    let keys = body.split("<Key>").skip(1);
    keys.map(|rest| unescaped(rest.split_once("</Key>").map_or(rest, |(key, _)| key))).collect()
}

/// The text of an XML element.
fn unescaped(text: &str) -> String {
    let mut pieces = text.split('&');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (entity, rest) = piece.split_once(';').unwrap_or((piece, ""));
        let decimal = || entity.strip_prefix('#')?.parse().ok();
        let hexadecimal = || u32::from_str_radix(entity.strip_prefix("#x")?, 16).ok();
        let character = match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => decimal().or_else(hexadecimal).and_then(char::from_u32),
        };
        plain.extend(character);
        plain.push_str(rest);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("GET", "/b/a%2Fk%20ey", Operation::GetObject, Some("a/k ey"))]
    #[case("GET", "/b/a//b", Operation::GetObject, Some("a//b"))]
    #[case("GET", "/b/k?tagging", Operation::GetObjectTagging, Some("k"))]
    #[case("HEAD", "/b/k", Operation::HeadObject, Some("k"))]
    #[case("HEAD", "/b/", Operation::HeadBucket, None)]
    #[case("HEAD", "/b", Operation::HeadBucket, None)]
    #[case("GET", "/b?list-type=2&prefix=x%2B", Operation::ListObjectsV2, None)]
    #[case("GET", "/b?uploads", Operation::ListMultipartUploads, None)]
    #[case("PUT", "/b/k?x-id=PutObject", Operation::PutObject, Some("k"))]
    #[case("PUT", "/b/k?partNumber=1&uploadId=u", Operation::UploadPart, Some("k"))]
    #[case("POST", "/b/k?uploads", Operation::CreateMultipartUpload, Some("k"))]
    #[case("POST", "/b/k?uploadId=u", Operation::CompleteMultipartUpload, Some("k"))]
    #[case("DELETE", "/b/k?uploadId=u", Operation::AbortMultipartUpload, Some("k"))]
    #[case("DELETE", "/b/k?x-id=DeleteObject", Operation::DeleteObject, Some("k"))]
    #[case("POST", "/b/?delete", Operation::DeleteObjects, None)]
    #[case("GET", "/", Operation::Other, None)]
    fn a_request_is_told_by_method_path_and_query(
        #[case] method: &str,
        #[case] uri: &str,
        #[case] operation: Operation,
        #[case] key: Option<&str>,
    ) {
        let (parts, ()) = hyper::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        let recorded = Recorded::of(1, &parts);
        assert_eq!((recorded.operation, recorded.key.as_deref()), (operation, key));
        assert_eq!(recorded.bucket.as_deref(), (uri != "/").then_some("b"));
    }

    #[test]
    fn keys_of_a_delete_are_unescaped() {
        let body =
            "<Delete><Object><Key>a&amp;b&lt;&#xA;&#10;</Key><ETag>e</ETag></Object><Object><Key>c</Key></Object>";
        assert_eq!(keys_to_delete(body), ["a&b<\n\n", "c"]);
    }
}
