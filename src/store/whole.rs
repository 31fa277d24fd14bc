//! A document that was cut, or that more follows, is no answer.
//!
//! The SDK reads as much of a document as it needs and takes its end for granted: half a listing, whose length a proxy
//! made good, is a shorter listing to it.

use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;

/// Fails requests whose answer is a document without its end.
#[derive(Debug)]
pub(super) struct WholeDocuments;

impl Intercept for WholeDocuments {
    fn name(&self) -> &'static str {
        "WholeDocuments"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        // The body of an object is not read yet and shows no bytes.
        match response.body().bytes() {
            Some(bytes) if response.status().is_success() && !is_whole(bytes) => {
                Err("the document has not the end that its beginning promises".into())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a document, if it is one, ends with the element that it begins with.
fn is_whole(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    let Some(mut rest) = body.strip_prefix(b"<") else { return true };
    if rest.starts_with(b"?") {
        let Some(end) = rest.windows(2).position(|two| two == b"?>") else { return false };
        let Some(root) = rest[end + 2..].trim_ascii_start().strip_prefix(b"<") else { return false };
        rest = root;
    }
    let length = rest.iter().take_while(|byte| !byte.is_ascii_whitespace() && !b"/>".contains(byte)).count();
    let (name, rest) = rest.split_at(length);
    let end = body.strip_suffix(b">").and_then(|body| body.trim_ascii_end().strip_suffix(name));
    let closed = end.is_some_and(|body| body.ends_with(b"</"));
    let empty = rest.iter().position(|byte| *byte == b'>').is_some_and(|at| at + 1 == rest.len());
    closed || (empty && rest.ends_with(b"/>"))
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    const LISTING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3\"><Name>b</Name>\
                           <Contents><Key>a</Key></Contents><Contents><Key>b</Key></Contents></ListBucketResult>";

    #[test]
    fn a_document_is_whole_with_its_end_and_without_anything_else() {
        for whole in
            [LISTING, "", "no document", "<a/>", "<a b=\"c\" />", "<a></a>", "<?xml version=\"1.0\"?>\n \n<a>b</a>\n"]
        {
            assert!(is_whole(whole.as_bytes()), "{whole}");
        }
        for length in 1..LISTING.len() {
            assert!(!is_whole(&LISTING.as_bytes()[..length]), "{}", &LISTING[..length]);
        }
        for broken in ["<a></b>", "<a/><b", "<a></a", "<a></a><b></b>", "<a></a?", "<a/>b", "<a"] {
            assert!(!is_whole(broken.as_bytes()), "{broken}");
        }
    }
}
