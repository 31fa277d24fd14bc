//! Conditional requests: the table of what S3 servers do, in its column for Amazon S3.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use rstest::rstest;
use testbed::{BucketOptions, Quirks, Settings, Testbed};

use crate::{answer, client, get, logs, put, told};

const STALE: &str = "\"0123456789abcdef0123456789abcdef\"";

#[rstest]
#[case::free(false, None, Some("*"), 200, "")]
#[case::taken(true, None, Some("*"), 412, "PreconditionFailed")]
#[case::the_same(true, Some("current"), None, 200, "")]
#[case::stale(true, Some(STALE), None, 412, "PreconditionFailed")]
#[case::missing(false, Some(STALE), None, 404, "NoSuchKey")]
#[tokio::test]
async fn conditional_puts_and_completes(
    #[case] exists: bool,
    #[case] if_match: Option<&str>,
    #[case] if_none_match: Option<&str>,
    #[case] status: u16,
    #[case] code: &str,
    #[values(false, true)] multipart: bool,
) {
    let (bed, client) = logs();
    let current = if exists { put(&client, "r", "old\n").await } else { String::new() };
    let if_match = if_match.map(|etag| if etag == "current" { current.clone() } else { etag.to_owned() });
    let if_none_match = if_none_match.map(str::to_owned);
    let result = if multipart {
        let (id, parts) = crate::multipart::upload_of_one_part(&client, "r", "new\n").await;
        let complete = client.complete_multipart_upload().bucket("logs").key("r").upload_id(id).multipart_upload(parts);
        told(complete.set_if_match(if_match).set_if_none_match(if_none_match).send().await)
    } else {
        let put = client.put_object().bucket("logs").key("r").body(b"new\n".to_vec().into());
        told(put.set_if_match(if_match).set_if_none_match(if_none_match).send().await)
    };
    assert_eq!(result, answer(status, code));
    let now = get(&client, "r").await;
    match (status, exists) {
        (200, _) => assert_eq!(now.unwrap(), b"new\n"),
        (_, true) => assert_eq!(now.unwrap(), b"old\n"),
        (_, false) => assert_eq!(now, None),
    }
    let left = usize::from(multipart && status != 200);
    assert_eq!(bed.uploads("logs").len(), left, "a refused Complete leaves the upload in place");
}

#[rstest]
#[case::amazon(Quirks::default(), 404, true)]
#[case::seaweedfs(Quirks { if_match_on_missing_is_412: true, ..Quirks::default() }, 412, true)]
#[case::minio(Quirks { ignore_delete_conditions: true, ..Quirks::default() }, 404, false)]
#[case::old(Quirks { ignore_write_conditions: true, ..Quirks::default() }, 200, true)]
#[tokio::test]
async fn other_servers_differ(
    #[case] quirks: Quirks,
    #[case] put_on_missing: u16,
    #[case] delete_is_conditional: bool,
) {
    let bed = Testbed::new(Settings { quirks, ..Settings::default() });
    bed.create_bucket("logs");
    let client = client(&bed);
    let result = client.put_object().bucket("logs").key("r").if_match(STALE).send().await;
    assert_eq!(told(result).0, put_on_missing);
    bed.put("logs", "s", "line\n");
    let deleted = client.delete_object().bucket("logs").key("s").if_match(STALE).send().await;
    assert_eq!(deleted.is_err(), delete_is_conditional);
    assert_eq!(bed.object("logs", "s").is_some(), delete_is_conditional);
}

#[tokio::test]
async fn conditional_reads() {
    let (_bed, client) = logs();
    let etag = put(&client, "k", "line\n").await;
    let get = || client.get_object().bucket("logs").key("k");
    assert_eq!(told(get().if_match(&etag).send().await), answer(200, ""));
    assert_eq!(told(get().if_match(STALE).send().await), answer(412, "PreconditionFailed"));
    assert_eq!(told(get().if_none_match(&etag).send().await).0, 304);
    let head = client.head_object().bucket("logs").key("k").if_match(STALE).send().await;
    assert_eq!(told(head).0, 412);
}

#[tokio::test]
async fn conditional_deletes() {
    let (bed, client) = logs();
    let etag = put(&client, "k", "line\n").await;
    let delete = |etag: &str| client.delete_object().bucket("logs").key("k").if_match(etag).send();
    assert_eq!(told(delete(STALE).await), answer(412, "PreconditionFailed"));
    assert_eq!(told(delete(&etag).await), answer(200, ""));
    assert_eq!(told(delete(&etag).await), answer(404, "NoSuchKey"));
    assert!(bed.keys("logs").is_empty());
    let again = client.delete_object().bucket("logs").key("k").send().await;
    assert_eq!(told(again), answer(200, ""), "without a condition a missing key is deleted");
}

#[tokio::test]
async fn deletes_of_many_answer_key_by_key() {
    let (bed, client) = logs();
    let etag = put(&client, "good", "line\n").await;
    bed.put("logs", "stale & <odd>", "line\n");
    bed.put("logs", "denied/k", "line\n");
    bed.put("logs", "plain", "line\n");
    bed.deny(testbed::Operation::DeleteObject, "logs", "denied/");
    let named = |key: &str, etag: Option<&str>| {
        ObjectIdentifier::builder().key(key).set_e_tag(etag.map(str::to_owned)).build().unwrap()
    };
    let keys = [
        named("good", Some(&etag)),
        named("stale & <odd>", Some(STALE)),
        named("missing", Some(STALE)),
        named("missing", None),
        named("denied/k", None),
        named("plain", None),
    ];
    let delete = Delete::builder().set_objects(Some(keys.to_vec())).build().unwrap();
    let done = client.delete_objects().bucket("logs").delete(delete).send().await.unwrap();
    let deleted: Vec<&str> = done.deleted().iter().filter_map(|it| it.key()).collect();
    let errors: Vec<_> = done.errors().iter().map(|it| (it.key().unwrap(), it.code().unwrap())).collect();
    assert_eq!(deleted, ["good", "missing", "plain"]);
    let expected = [("stale & <odd>", "PreconditionFailed"), ("missing", "NoSuchKey"), ("denied/k", "AccessDenied")];
    assert_eq!(errors, expected);
    assert_eq!(bed.keys("logs"), ["denied/k", "stale & <odd>"]);
    let recorded = bed.requests().pop().unwrap();
    assert_eq!(recorded.keys, ["good", "stale & <odd>", "missing", "missing", "denied/k", "plain"]);
}

#[tokio::test]
async fn versioned_buckets_keep_what_was_there() {
    let (bed, client) = logs();
    bed.create_bucket_with("logs", BucketOptions { versioned: true, region: None });
    put(&client, "k", "one\n").await;
    put(&client, "k", "two\n").await;
    let head = client.head_object().bucket("logs").key("k").send().await.unwrap();
    assert_eq!(bed.versions("logs", "k"), 2);
    let deleted = client.delete_object().bucket("logs").key("k").send().await.unwrap();
    assert_eq!(deleted.delete_marker, Some(true));
    assert_eq!(told(client.get_object().bucket("logs").key("k").send().await), answer(404, "NoSuchKey"));
    let conditional = client.delete_object().bucket("logs").key("k").if_match(STALE).send().await;
    assert_eq!(told(conditional), answer(404, "NoSuchKey"), "nor is there anything under a delete marker");
    assert_eq!(bed.versions("logs", "k"), 2);
    let old = client.get_object().bucket("logs").key("k").set_version_id(head.version_id).send().await.unwrap();
    assert_eq!(&old.body.collect().await.unwrap().to_vec(), b"two\n");
    // Removing the marker brings the object back.
    client.delete_object().bucket("logs").key("k").set_version_id(deleted.version_id).send().await.unwrap();
    assert_eq!(get(&client, "k").await.unwrap(), b"two\n");
}
