//! Answers of bounded length: the SDK reads every body into memory, but for that of an object, however long it is.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Bytes of a page: 1,000 entries of the longest keys, each byte of them escaped, stay below.
const PAGE: u64 = 16 << 20;
/// Bytes of the answer to `DeleteObjects`, for at most 250 of the longest keys, each byte of them escaped.
const DELETED: u64 = 4 << 20;
/// Bytes of any other answer, and of every error: a thousand requests may be in flight.
const SMALL: u64 = 64 << 10;

/// Cuts every answer that the SDK would read into memory.
#[derive(Debug)]
pub(super) struct BoundedAnswers;

#[dyn_dispatch_hint]
impl Intercept for BoundedAnswers {
    fn name(&self) -> &'static str {
        "BoundedAnswers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = bag.load::<Metadata>().map_or("", Metadata::name);
        let response = context.response_mut();
        let most = match operation {
            // Its body is not read here, and no further than the object is long.
            "GetObject" if response.status().is_success() => return Ok(()),
            "ListObjectsV2" | "ListMultipartUploads" if response.status().is_success() => PAGE,
            "DeleteObjects" if response.status().is_success() => DELETED,
            _ => SMALL,
        };
        let body = response.take_body();
        *response.body_mut() = SdkBody::from_body_1_x(Bounded { body, most, left: most });
        Ok(())
    }
}

struct Bounded {
    body: SdkBody,
    most: u64,
    left: u64,
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(Box::new(TooLong(self.most))))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}

/// An answer was cut.
#[derive(Debug)]
struct TooLong(u64);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer is longer than {} bytes, which S3's never is", self.0)
    }
}

impl std::error::Error for TooLong {}
