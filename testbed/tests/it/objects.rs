//! Objects, listings, permissions.

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, EncodingType, StorageClass};
use rstest::rstest;
use testbed::{BucketOptions, Checksum, Operation};

use crate::{answer, client_in, get, logs, told};

#[tokio::test]
async fn a_put_is_read_as_it_was_written() {
    let (bed, client) = logs();
    let time = "2026-01-31T10:11:12.987Z".parse().unwrap();
    bed.set_now(time);
    let put = client.put_object().bucket("logs").key("k").body(b"hello world".to_vec().into());
    let put = put.content_type("text/plain").metadata("rollup-batch", "b1").tagging("team=a%20b&x=");
    let done = put.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).send().await.unwrap();
    assert_eq!(done.e_tag(), Some("\"5eb63bbbe01eeed093cb22bb8f5acdc3\""));
    assert_eq!(done.checksum_crc64_nvme(), Some("jSnVw/bqjr4="));

    let head = client.head_object().bucket("logs").key("k").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some("jSnVw/bqjr4="));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
    assert_eq!(head.metadata().unwrap()["rollup-batch"], "b1");
    assert_eq!(head.content_type(), Some("text/plain"));
    assert_eq!(head.content_length(), Some(11));
    assert_eq!(head.last_modified().unwrap().secs(), 1_769_854_272);
    assert_eq!(head.last_modified().unwrap().subsec_nanos(), 0);
    let found = client.get_object().bucket("logs").key("k").send().await.unwrap();
    assert_eq!(found.tag_count(), Some(2));
    let tags = client.get_object_tagging().bucket("logs").key("k").send().await.unwrap();
    let tags: Vec<_> = tags.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
    assert_eq!(tags, [("team", "a b"), ("x", "")]);
    let part = client.get_object().bucket("logs").key("k").range("bytes=6-").send().await.unwrap();
    assert_eq!(part.content_range(), Some("bytes 6-10/11"));
    assert_eq!(&part.body.collect().await.unwrap().to_vec(), b"world");
    let beyond = client.get_object().bucket("logs").key("k").range("bytes=11-").send().await;
    assert_eq!(told(beyond), answer(416, "InvalidRange"));
    assert_eq!(bed.object("logs", "k").unwrap().version, None);
}

#[rstest]
#[case::crc64nvme("jSnVw/bqjr4=", "AAAAAAAAAAA=")]
#[tokio::test]
async fn a_wrong_checksum_of_a_put_is_refused(#[case] right: &str, #[case] wrong: &str) {
    let (bed, client) = logs();
    let put = || client.put_object().bucket("logs").key("k").body(b"hello world".to_vec().into());
    assert_eq!(told(put().checksum_crc64_nvme(wrong).send().await), answer(400, "BadDigest"));
    assert_eq!(told(put().checksum_crc32("AAAAAA==").send().await), answer(400, "BadDigest"));
    assert_eq!(told(put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await), answer(400, "BadDigest"));
    assert!(bed.keys("logs").is_empty());
    assert_eq!(told(put().checksum_crc64_nvme(right).send().await), answer(200, ""));
}

#[tokio::test]
async fn the_sdks_default_checksum_is_kept_instead_of_crc64nvme() {
    let (bed, client) = logs();
    crate::put(&client, "k", "hello world").await;
    let head = client.head_object().bucket("logs").key("k").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!((head.checksum_crc32(), head.checksum_crc64_nvme()), (Some("DUoRhQ=="), None));
    assert_eq!(bed.object("logs", "k").unwrap().checksum, Checksum::Crc32);
}

/// Keys that are troublesome somewhere; on Amazon S3 each is its own key.
#[tokio::test]
async fn awkward_keys_are_keys() {
    let (bed, client) = logs();
    let keys = ["a//b", "a/b", "a b+c", "100%", "q?x=1", "#", "new\nline", "ü/日本", "..", "a/../b", "&<>\"'", "/lead"];
    for key in keys {
        client.put_object().bucket("logs").key(key).body(key.as_bytes().to_vec().into()).send().await.unwrap();
        assert_eq!(get(&client, key).await.unwrap(), key.as_bytes(), "{key:?}");
    }
    let mut sorted = keys.map(str::to_owned);
    sorted.sort();
    assert_eq!(bed.keys("logs"), sorted);
    let page = client.list_objects_v2().bucket("logs").encoding_type(EncodingType::Url).send().await.unwrap();
    let decoded =
        |key: &str| percent_encoding::percent_decode_str(&key.replace('+', " ")).decode_utf8().unwrap().into_owned();
    let listed: Vec<String> = page.contents().iter().map(|object| decoded(object.key().unwrap())).collect();
    assert_eq!(listed, sorted);
    for key in keys {
        client.delete_object().bucket("logs").key(key).send().await.unwrap();
    }
    assert!(bed.keys("logs").is_empty());
}

#[tokio::test]
async fn listings_come_in_pages_of_a_thousand() {
    let (bed, client) = logs();
    for number in 0..2_500 {
        bed.put("logs", &format!("a/{number:04}"), "line\n");
    }
    bed.put_with("logs", "b/x", "", |object| object.storage_class = Some("GLACIER".to_owned()));
    let list = || client.list_objects_v2().bucket("logs");
    let (mut sizes, mut token) = (Vec::new(), None);
    loop {
        let page = list().prefix("a/").set_continuation_token(token).send().await.unwrap();
        sizes.push(page.contents().len());
        assert_eq!(page.is_truncated(), Some(page.next_continuation_token().is_some()));
        match page.next_continuation_token {
            Some(next) => token = Some(next),
            None => break,
        }
    }
    assert_eq!(sizes, [1_000, 1_000, 500]);
    let after = list().start_after("a/2498").send().await.unwrap();
    let listed: Vec<_> =
        after.contents().iter().map(|it| (it.key().unwrap(), it.storage_class().unwrap().as_str())).collect();
    assert_eq!(listed, [("a/2499", "STANDARD"), ("b/x", "GLACIER")]);
    let etag = format!("\"{}\"", bed.object("logs", "a/2499").unwrap().etag);
    assert_eq!(after.contents()[0].e_tag(), Some(etag.as_str()));
    let folders = list().delimiter("/").max_keys(1).send().await.unwrap();
    assert_eq!(folders.common_prefixes()[0].prefix(), Some("a/"));
    assert_eq!((folders.key_count(), folders.is_truncated()), (Some(1), Some(true)));
    let bad = list().continuation_token("none of ours").send().await;
    assert_eq!(told(bad), answer(400, "InvalidArgument"));
}

#[rstest]
#[case("GLACIER", 403, "InvalidObjectState")]
#[case("DEEP_ARCHIVE", 403, "InvalidObjectState")]
#[case("GLACIER_IR", 200, "")]
#[case("STANDARD_IA", 200, "")]
#[tokio::test]
async fn archived_objects_are_listed_and_not_read(#[case] class: &str, #[case] status: u16, #[case] code: &str) {
    let (bed, client) = logs();
    bed.put_with("logs", "k", "line\n", |object| object.storage_class = Some(class.to_owned()));
    let head = client.head_object().bucket("logs").key("k").send().await.unwrap();
    assert_eq!(head.storage_class(), Some(&StorageClass::from(class)));
    assert_eq!(told(client.get_object().bucket("logs").key("k").send().await), answer(status, code));
}

#[tokio::test]
async fn what_is_not_there_and_what_is_denied() {
    let (bed, client) = logs();
    let get = |bucket: &str, key: &str| client.get_object().bucket(bucket).key(key).send();
    let head = || client.head_object().bucket("logs").key("none").send();
    assert_eq!(told(get("none", "k").await), answer(404, "NoSuchBucket"));
    assert_eq!(told(get("logs", "none").await), answer(404, "NoSuchKey"));
    assert_eq!(told(head().await).0, 404);
    assert_eq!(told(client.head_bucket().bucket("none").send().await).0, 404);

    bed.hide_missing("logs");
    assert_eq!(told(get("logs", "none").await), answer(403, "AccessDenied"));
    assert_eq!(told(head().await).0, 403);
    assert_eq!(told(client.list_objects_v2().bucket("logs").send().await), answer(200, ""));
    bed.allow_again();
    bed.deny(Operation::ListObjectsV2, "logs", "");
    assert_eq!(told(head().await).0, 403);
    assert_eq!(told(client.list_objects_v2().bucket("logs").send().await), answer(403, "AccessDenied"));
    bed.allow_again();
    bed.put("logs", "a/k", "line\n");
    bed.deny(Operation::GetObject, "logs", "a/");
    assert_eq!(told(get("logs", "a/k").await), answer(403, "AccessDenied"));
    assert_eq!(told(head().await).0, 404);

    let owner = |id: &str| client.list_objects_v2().bucket("logs").expected_bucket_owner(id).send();
    assert_eq!(told(owner("111122223333").await), answer(200, ""));
    assert_eq!(told(owner("999999999999").await), answer(403, "AccessDenied"));
}

#[tokio::test]
async fn a_bucket_in_another_region_redirects() {
    let (bed, client) = logs();
    let there = BucketOptions { region: Some("eu-west-1".to_owned()), versioned: false };
    bed.create_bucket_with("far", there);
    let result = client.list_objects_v2().bucket("far").send().await.unwrap_err();
    let response = result.raw_response().unwrap();
    assert_eq!((response.status().as_u16(), response.headers().get("x-amz-bucket-region")), (301, Some("eu-west-1")));
    let head = client.head_bucket().bucket("far").send().await.unwrap_err();
    assert_eq!(head.raw_response().unwrap().headers().get("x-amz-bucket-region"), Some("eu-west-1"));
    let near = client_in(&bed, "eu-west-1");
    let found = near.head_bucket().bucket("far").send().await.unwrap();
    assert_eq!(found.bucket_region(), Some("eu-west-1"));
}
