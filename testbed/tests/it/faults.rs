//! Faults, pauses, kills, limits: each does what its documentation says, to the request that it names.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use rstest::rstest;
use testbed::{FaultKind, Limits, Moment, Operation, Settings, Testbed, When};

use crate::{answer, client, get, logs, put, told};

#[rstest]
#[case::refused(FaultKind::Status(503, "SlowDown"), answer(503, "SlowDown"), false)]
#[case::refused_after(FaultKind::StatusAfter(500, "InternalError"), answer(500, "InternalError"), true)]
#[case::broken(FaultKind::ResetBefore, answer(0, ""), false)]
#[case::lost(FaultKind::LostAnswer, answer(0, ""), true)]
#[tokio::test]
async fn a_faulty_put_is_applied_or_not(
    #[case] kind: FaultKind,
    #[case] expected: (u16, String),
    #[case] applied: bool,
) {
    let (bed, client) = logs();
    let fault = bed.fault(When::operation(Operation::PutObject).key("k").skip(1), kind);
    let put = |body: &'static str| client.put_object().bucket("logs").key("k").body(body.as_bytes().to_vec().into());
    put("one").send().await.unwrap();
    assert_eq!(told(put("two").send().await), expected);
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), if applied { "two" } else { "one" });
    let recorded = bed.requests().pop().unwrap();
    assert_eq!((recorded.applied, recorded.status), (applied, Some(expected.0).filter(|status| *status > 0)));
    assert_eq!(fault.hits(), 1);
    put("three").send().await.unwrap();
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "three");
}

#[rstest]
#[case::truncated(FaultKind::TruncatedBody, None)]
#[case::short(FaultKind::ShortBody, Some("0123"))]
#[case::long(FaultKind::LongBody, Some("012345670123"))]
#[case::flipped(FaultKind::WrongChecksum, None)]
#[tokio::test]
async fn a_faulty_body_is_another(#[case] kind: FaultKind, #[case] expected: Option<&str>) {
    let (bed, client) = logs();
    bed.put("logs", "k", "01234567");
    let fault = bed.fault(When::operation(Operation::GetObject).always(), kind);
    let found = get(&client, "k").await.map(|body| String::from_utf8(body).unwrap());
    assert_eq!(found.as_deref(), expected);
    fault.clear();
    assert_eq!(get(&client, "k").await.unwrap(), b"01234567");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_takes_its_time() {
    let (bed, client) = logs();
    bed.put("logs", "k", vec![b'x'; 10_000]);
    bed.fault(When::any(), FaultKind::Slow(1_000));
    let start = tokio::time::Instant::now();
    assert_eq!(get(&client, "k").await.unwrap().len(), 10_000);
    assert_eq!(start.elapsed().as_millis() / 100, 100, "ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_trickling_body_is_whole_in_the_end_and_an_answer_without_a_body_comes_at_once() {
    let (bed, client) = logs();
    bed.put("logs", "k", "01234567");
    bed.fault(When::any().always(), FaultKind::Trickle(Duration::from_secs(10)));
    let start = tokio::time::Instant::now();
    assert_eq!(get(&client, "k").await.unwrap(), b"01234567");
    assert_eq!(start.elapsed().as_secs(), 80);
    client.delete_object().bucket("logs").key("k").send().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 80);
}

#[rstest]
#[case(FaultKind::TruncatedBody)]
#[case(FaultKind::ShortBody)]
#[case(FaultKind::LongBody)]
#[case(FaultKind::WrongChecksum)]
#[case(FaultKind::Slow(1))]
#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_is_not_changed_by_a_fault_of_bodies(#[case] kind: FaultKind) {
    let (bed, client) = logs();
    let etag = put(&client, "k", "01234567").await;
    bed.fault(When::any().always(), kind);
    let head = client.head_object().bucket("logs").key("k").send().await.unwrap();
    assert_eq!((head.e_tag(), head.content_length()), (Some(etag.as_str()), Some(8)));
    assert_eq!(put(&client, "k", "01234567").await, etag);
}

#[tokio::test]
async fn a_fault_of_listings_may_name_their_prefix() {
    let (bed, client) = logs();
    let list = |prefix: &'static str| client.list_objects_v2().bucket("logs").prefix(prefix).send();
    let fault = bed.fault(When::any().prefix("a/").always(), FaultKind::Status(503, "SlowDown"));
    assert_eq!(told(list("a/b").await), answer(200, ""));
    assert_eq!(told(list("a/").await), answer(503, "SlowDown"));
    assert_eq!(told(client.get_object().bucket("logs").key("a/").send().await).0, 404);
    assert_eq!(fault.hits(), 1);
}

#[tokio::test]
async fn a_copy_begins_with_the_same_objects_and_uploads_and_goes_its_own_way() {
    let (bed, client) = logs();
    put(&client, "k", "one\n").await;
    let (id, parts) = crate::multipart::upload_of_one_part(&client, "r", "new\n").await;
    bed.fault(When::any().always(), FaultKind::ResetBefore);
    let copy = bed.copy();
    let other = crate::client(&copy);
    put(&other, "k", "two\n").await;
    let complete = other.complete_multipart_upload().bucket("logs").key("r").upload_id(&id);
    complete.multipart_upload(parts).send().await.unwrap();
    assert_eq!((copy.keys("logs"), copy.uploads("logs").len()), (vec!["k".to_owned(), "r".to_owned()], 0));
    assert_eq!((bed.keys("logs"), bed.uploads("logs").len()), (vec!["k".to_owned()], 1));
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "one\n");
    assert_eq!((copy.requests().len(), bed.requests().len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_be_applied_long_after_its_client_gave_it_up() {
    let (bed, client) = logs();
    let etag = put(&client, "k", "one\n").await;
    let replace = |body: &'static [u8]| client.put_object().bucket("logs").key("k").body(body.to_vec().into());
    bed.fault(When::operation(Operation::PutObject).times(2), FaultKind::AppliedLater(Duration::from_hours(1)));
    assert_eq!(told(replace(b"late\n").if_match(etag).send().await).0, 0);
    assert_eq!(told(replace(b"never\n").if_none_match("*").send().await).0, 0);
    assert_eq!(get(&client, "k").await.unwrap(), b"one\n");
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_eq!(get(&client, "k").await.unwrap(), b"late\n", "and its condition holds good to the end");
    let puts: Vec<_> = bed.requests().into_iter().filter(|it| it.operation == Operation::PutObject).collect();
    assert_eq!(puts.iter().map(|it| it.applied).collect::<Vec<_>>(), [true, true, false]);
}

#[rstest]
#[case(FaultKind::HangBefore, false)]
#[case(FaultKind::HangAfter, true)]
#[tokio::test(start_paused = true)]
async fn a_hanging_request_is_never_answered(#[case] kind: FaultKind, #[case] applied: bool) {
    let (bed, client) = logs();
    bed.fault(When::any(), kind);
    let put = client.put_object().bucket("logs").key("k").send();
    assert!(tokio::time::timeout(Duration::from_hours(1), put).await.is_err());
    assert_eq!(bed.object("logs", "k").is_some(), applied);
}

#[tokio::test]
async fn a_success_may_carry_an_error() {
    let (bed, client) = logs();
    let (id, parts) = crate::multipart::upload_of_one_part(&client, "r", "new\n").await;
    let complete = || {
        let complete = client.complete_multipart_upload().bucket("logs").key("r").upload_id(&id);
        complete.multipart_upload(parts.clone()).send()
    };
    let when = || When::operation(Operation::CompleteMultipartUpload);
    bed.fault(when(), FaultKind::OkWithErrorBody("InternalError"));
    assert_eq!(told(complete().await).1, "InternalError");
    assert!(bed.object("logs", "r").is_none());
    bed.fault(when(), FaultKind::OkWithErrorBodyAfter("InternalError"));
    assert_eq!(told(complete().await).1, "InternalError");
    assert!(bed.object("logs", "r").is_some());
}

#[tokio::test]
async fn listings_may_repeat_a_page_or_end_early() {
    let (bed, client) = logs();
    for number in 0..5 {
        bed.put("logs", &number.to_string(), "line\n");
    }
    let page = |token: Option<String>| {
        client.list_objects_v2().bucket("logs").max_keys(2).set_continuation_token(token).send()
    };
    let keys = |page: &aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output| {
        page.contents().iter().filter_map(|it| it.key().map(str::to_owned)).collect::<Vec<_>>()
    };
    bed.fault(When::operation(Operation::ListObjectsV2).times(2), FaultKind::RepeatPage);
    let first = page(None).await.unwrap();
    let again = page(first.next_continuation_token.clone()).await.unwrap();
    assert_eq!(keys(&first), keys(&again));
    assert_eq!(first.next_continuation_token, again.next_continuation_token);
    let second = page(again.next_continuation_token).await.unwrap();
    assert_eq!((keys(&second), second.is_truncated()), (vec!["0".to_owned(), "1".to_owned()], Some(true)));
    bed.fault(When::any(), FaultKind::EndEarly);
    let last = page(second.next_continuation_token).await.unwrap();
    assert_eq!((keys(&last), last.is_truncated()), (vec!["2".to_owned(), "3".to_owned()], Some(false)));
    assert_eq!(last.next_continuation_token(), None);
}

#[rstest]
#[case(FaultKind::KeyError("SlowDown"), false)]
#[case(FaultKind::KeyErrorAfter("InternalError"), true)]
#[tokio::test]
async fn single_keys_of_a_delete_may_fail(#[case] kind: FaultKind, #[case] applied: bool) {
    let (bed, client) = logs();
    bed.put("logs", "a", "");
    bed.put("logs", "b", "");
    bed.fault(When::operation(Operation::DeleteObjects).key("b"), kind);
    let named = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let delete = Delete::builder().objects(named("a")).objects(named("b")).build().unwrap();
    let done = client.delete_objects().bucket("logs").delete(delete).send().await.unwrap();
    assert_eq!((done.deleted().len(), done.errors()[0].key()), (1, Some("b")));
    assert_eq!(bed.keys("logs").is_empty(), applied);
}

#[tokio::test]
async fn a_delete_may_pass_over_a_key_in_silence() {
    let (bed, client) = logs();
    bed.put("logs", "a", "");
    bed.fault(When::operation(Operation::DeleteObjects).key("a"), FaultKind::KeyUnnamed);
    let delete = Delete::builder().objects(ObjectIdentifier::builder().key("a").build().unwrap()).build().unwrap();
    let done = client.delete_objects().bucket("logs").delete(delete).send().await.unwrap();
    assert_eq!((done.deleted().len(), done.errors().len()), (0, 0));
    assert_eq!(bed.keys("logs"), ["a"]);
}

#[tokio::test]
async fn a_gate_lets_a_test_interleave() {
    let (bed, client) = logs();
    let gate = bed.pause(When::operation(Operation::PutObject), Moment::Before);
    let held = {
        let client = client.clone();
        tokio::spawn(async move { put(&client, "k", "held\n").await })
    };
    gate.reached().await;
    put(&client, "k", "meanwhile\n").await;
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "meanwhile\n");
    gate.release();
    held.await.unwrap();
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "held\n");

    let gate = bed.pause(When::any().always(), Moment::Applied);
    let held = {
        let client = client.clone();
        tokio::spawn(async move { put(&client, "k", "applied\n").await })
    };
    gate.reached().await;
    assert_eq!(bed.object("logs", "k").unwrap().bytes(), "applied\n");
    assert!(!held.is_finished());
    drop(gate);
    held.await.unwrap();
}

#[rstest]
#[case(Moment::Before, 2)]
#[case(Moment::Applied, 3)]
#[tokio::test]
async fn a_killed_client_gets_no_answer_any_more(#[case] moment: Moment, #[case] applied: usize) {
    let (bed, client) = logs();
    bed.kill_at(3, moment);
    let work = async {
        for key in ["1", "2", "3", "4", "5"] {
            put(&client, key, "line\n").await;
        }
    };
    tokio::select! {
        () = work => panic!("the work cannot finish"),
        () = bed.killed() => {}
    }
    assert_eq!(bed.keys("logs").len(), applied);
    bed.revive();
    put(&client, "6", "line\n").await;
}

#[tokio::test(start_paused = true)]
async fn limits_are_those_of_a_partition() {
    let limits = Limits::s3().divided_by(350.0).partitions(8);
    let bed = Testbed::new(Settings { limits: Some(limits), ..Settings::default() });
    bed.create_bucket("logs");
    let client = client(&bed);
    let delete = |folder: &str, count: usize| {
        let keys = (0..count).map(|key| ObjectIdentifier::builder().key(format!("{folder}/{key}")).build().unwrap());
        let delete = Delete::builder().set_objects(Some(keys.collect())).build().unwrap();
        client.delete_objects().bucket("logs").delete(delete).send()
    };
    assert_eq!(told(delete("a", 7).await), answer(200, ""));
    assert_eq!(told(delete("a", 4).await), answer(503, "SlowDown"), "each key is a write: ten a second");
    assert_eq!(told(delete("b", 4).await), answer(200, ""), "another folder, another partition");
    assert_eq!(told(delete("a", 3).await), answer(200, ""));
    assert_eq!(told(client.get_object().bucket("logs").key("a/k").send().await).0, 404, "reads have their own limit");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(told(delete("a", 4).await), answer(200, ""));
    assert_eq!(told(delete("a", 1).await), answer(503, "SlowDown"));
}

#[tokio::test(start_paused = true)]
async fn latency_passes_on_tokios_clock() {
    let bed = Testbed::new(Settings { latency: Duration::from_mins(1), ..Settings::default() });
    bed.create_bucket("logs");
    let client = client(&bed);
    let start = tokio::time::Instant::now();
    for _ in 0..60 {
        put(&client, "k", "line\n").await;
    }
    assert_eq!(start.elapsed().as_secs(), 3_600);
}

#[tokio::test]
async fn every_request_is_counted_recorded_and_shown_to_the_hook() {
    let (bed, client) = logs();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let (bed, seen) = (bed.clone(), Arc::clone(&seen));
        move |request: &testbed::Recorded| seen.lock().unwrap().push((request.operation, bed.keys("logs").len()))
    };
    bed.on_request(hook);
    put(&client, "a/k", "line\n").await;
    get(&client, "a/k").await.unwrap();
    assert!(get(&client, "none").await.is_none());
    client.list_objects_v2().bucket("logs").prefix("a/").send().await.unwrap();
    let expected = [(Operation::PutObject, 1), (Operation::GetObject, 1), (Operation::ListObjectsV2, 1)];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(bed.count(Operation::GetObject), 2);
    let requests = bed.requests();
    assert_eq!(requests.iter().map(|it| it.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(requests.iter().map(|it| it.status.unwrap()).collect::<Vec<_>>(), [200, 200, 404, 200]);
    assert_eq!((requests[0].bytes_in, requests[1].bytes_out), (5, 5));
    assert_eq!(requests[3].prefix.as_deref(), Some("a/"));
    bed.forget_requests();
    assert!(bed.requests().is_empty() && bed.counts().is_empty());
}

/// With jitter two requests sent at once may come in either order; which one is up to the seed alone.
#[tokio::test(start_paused = true)]
async fn a_seed_decides_the_order_of_requests_at_once() {
    let order = async |seed| {
        let latency = Duration::from_millis(100);
        let bed = Testbed::new(Settings { latency, jitter: Some(seed), ..Settings::default() });
        bed.create_bucket("logs");
        let client = client(&bed);
        tokio::join!(put(&client, "k", "left"), put(&client, "k", "right"));
        bed.object("logs", "k").unwrap().bytes()
    };
    let mut last = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let winner = Box::pin(order(seed)).await;
        assert_eq!(Box::pin(order(seed)).await, winner);
        last.insert(winner);
    }
    assert_eq!(last.len(), 2);
}

#[tokio::test]
async fn an_answer_may_name_another_etag() {
    let (bed, client) = logs();
    let etag = put(&client, "k", "line\n").await;
    bed.fault(When::operation(Operation::HeadObject), FaultKind::WrongETag);
    let head = || client.head_object().bucket("logs").key("k").send();
    assert_ne!(head().await.unwrap().e_tag(), Some(etag.as_str()));
    assert_eq!(head().await.unwrap().e_tag(), Some(etag.as_str()));
}
