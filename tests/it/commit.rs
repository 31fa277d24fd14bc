//! Commits of every size, kept sources, rebuilt rollups, lost answers, passes of several levels and shards.

use std::time::Duration;

use rstest::rstest;
use s3_log_rollup::layout::RollupName;
use s3_log_rollup::plan::Shard;
use testbed::{FaultKind, Moment, Operation, Quirks, Settings, Spec, When};

use crate::bench::{Bench, LOGS, OUT, done};

const MIB: usize = 1 << 20;

/// A line of so many bytes, newline included.
fn line(byte: char, length: usize) -> String {
    let mut line: String = std::iter::repeat_n(byte, length - 1).collect();
    line.push('\n');
    line
}

#[tokio::test(start_paused = true)]
async fn a_rollup_grows_over_5_mib_and_the_old_bytes_are_copied_not_sent() {
    let mut bench = Bench::new();
    bench.log("logs/2026-01-31-10-00-00-A", &line('a', 3 * MIB));
    done(&bench.pass(&[]).await);
    // Old and new together are a multipart upload whose first part begins with the old bytes.
    bench.log("logs/2026-01-31-11-00-00-B", &line('b', 4 * MIB));
    done(&bench.pass(&[]).await);
    let completed = |request: &&testbed::Recorded| {
        request.operation == Operation::CompleteMultipartUpload && request.key.as_deref() == Some("rollup/2026-01-31")
    };
    assert_eq!(bench.bed.requests().iter().filter(completed).count(), 1);
    // Now the old bytes are copied on the server.
    bench.log("logs/2026-01-31-12-00-00-C", &line('c', MIB));
    let ended = bench.pass(&[]).await;
    done(&ended);
    assert_eq!(ended.report.requests.get("UploadPartCopy"), Some(&2), "one of them the probe's");
    assert!(ended.report.sent < 2 * MIB as u64, "{} bytes were sent", ended.report.sent);
    assert_eq!(bench.text("2026-01-31"), line('a', 3 * MIB) + &line('b', 4 * MIB) + &line('c', MIB));
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn the_whole_of_a_rollup_is_asserted_by_its_crc_and_kept_by_the_store() {
    let mut bench = Bench::new();
    for (hour, size) in [(10, 6 * MIB), (11, MIB), (12, 100)] {
        bench.log(&format!("logs/2026-01-31-{hour}-00-00-A"), &line('x', size));
        done(&bench.pass(&[]).await);
    }
    let rollup = bench.bed.object(OUT, "rollup/2026-01-31").expect("it is there");
    let whole = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &rollup.bytes());
    assert_eq!(rollup.checksum, testbed::Checksum::Crc64Nvme);
    assert_eq!(rollup.crc64nvme(), whole);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn old_bytes_that_come_back_wrong_are_told_by_the_rollups_checksum() {
    let mut bench = Bench::new();
    bench.log("logs/2026-01-31-10-00-00-A", "old\n");
    done(&bench.pass(&[]).await);
    bench.log("logs/2026-01-31-11-00-00-A", "new\n");
    // Not every store sends a checksum with the bytes.
    let old = When::operation(Operation::GetObject).key("rollup/2026-01-31");
    let fault = bench.bed.fault(old, FaultKind::WrongBit);
    let ended = bench.pass(&[]).await;
    assert_eq!((fault.hits(), ended.exit_code()), (1, 1));
    assert!(ended.report.failures[0].why.contains("not those of its checksum"), "{:?}", ended.report.failures);
    assert_eq!(bench.text("2026-01-31"), "old\n");
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn old_bytes_that_the_store_copies_wrongly_are_told_by_the_checksum_of_the_whole() {
    let quirks = Quirks { damage_copied_parts: true, ..Quirks::default() };
    let mut bench = Bench::with(Settings { quirks, ..Settings::default() });
    bench.log("logs/2026-01-31-10-00-00-A", &line('a', 6 * MIB));
    done(&bench.pass(&[]).await);
    bench.log("logs/2026-01-31-11-00-00-A", "new\n");
    let ended = bench.pass(&[]).await;
    assert_eq!((ended.exit_code(), ended.report.rollups.failed), (1, 1), "{:?}", ended.report);
    assert!(ended.report.failures[0].why.contains("BadDigest"), "{:?}", ended.report.failures);
    assert_eq!(bench.text("2026-01-31"), line('a', 6 * MIB));
    bench.once();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_checksums_with_copied_parts_gets_its_appends_without() {
    let quirks = Quirks {
        refuse_checksum_with_copied_part: true,
        ignore_delete_conditions: true,
        if_match_on_missing_is_412: true,
        ..Quirks::default()
    };
    let mut bench = Bench::with(Settings { quirks, ..Settings::default() });
    for hour in [10, 11] {
        bench.log(&format!("logs/2026-01-31-{hour}-00-00-A"), &line('x', 6 * MIB));
        done(&bench.pass(&[]).await);
    }
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_source_larger_than_the_buffer_streams_through() {
    let mut bench = Bench::new();
    bench.log("logs/2026-01-31-10-00-00-A", &(line('a', 30 * MIB) + "the end, no newline"));
    bench.log("logs/2026-01-31-10-00-01-B", "next\n");
    done(&bench.pass(&[("ROLLUP_BUFFER", "8MiB")]).await);
    assert_eq!(bench.text("2026-01-31").len(), 30 * MIB + 20 + 5);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_batches_makes_one_rollup_and_reads_each_source_once() {
    let mut bench = Bench::with(Settings { latency: Duration::from_millis(30), ..Settings::default() });
    let spec = Spec { prefix: String::from("logs/"), objects: 400, ..Spec::default() };
    bench.log("logs/web/2026-01-31-00-00-00-0", &line('x', 6 * MIB));
    bench.fill(&spec);
    let ended = bench.pass(&[("ROLLUP_BATCH_OBJECTS", "50")]).await;
    done(&ended);
    assert_eq!((ended.report.rollups.created, ended.report.rollups.appended), (1, 8));
    let reads = bench
        .bed
        .requests()
        .iter()
        .filter(|r| r.operation == Operation::GetObject && r.bucket.as_deref() == Some(LOGS))
        .count();
    assert_eq!(reads, 400 + 6, "the large one in pieces of 1 MiB");
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn two_groups_of_one_name_share_a_rollup() {
    let mut bench = Bench::new();
    for at in 0..30 {
        bench.log(&format!("logs/web2026-01-31-10-00-{at}-A"), "beside\n");
        bench.log(&format!("logs/web/2026-01-31-10-00-{at}-A"), "inside\n");
    }
    done(&bench.pass(&[("ROLLUP_BATCH_OBJECTS", "7")]).await);
    assert_eq!(bench.rollups(), ["web/2026-01-31"]);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn with_keep_a_second_run_adds_nothing_and_a_later_one_without_deletes() {
    let mut bench = Bench::new();
    let keep = [("ROLLUP_KEEP", "true")];
    let spec = Spec { prefix: String::from("logs/"), groups: 2, objects: 40, ..Spec::default() };
    bench.fill(&spec);
    done(&bench.pass(&keep).await);
    let first = bench.text("web/2026-01-31");
    let again = bench.pass(&keep).await;
    done(&again);
    assert_eq!(again.report.rolled_up.objects, 0);
    assert_eq!(bench.text("web/2026-01-31"), first);
    assert_eq!(bench.bed.keys(LOGS).len(), 40);
    let kept = bench.ledger.check_testbed_kept(&bench.bed, (OUT, "rollup/"), (LOGS, "logs/"));
    kept.expect("every line is in a rollup, every source in its place");
    assert_eq!(bench.bed.keys_under(OUT, "rollup/_manifests/").len(), 2);
    bench.log("logs/web/2026-01-31-23-00-00-F", "late\n");
    done(&bench.pass(&[]).await);
    assert!(bench.bed.keys(LOGS).is_empty());
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn with_keep_what_a_lifecycle_rule_expired_drops_out_of_the_manifest() {
    let mut bench = Bench::new();
    let keep = [("ROLLUP_KEEP", "true")];
    for second in 10..20 {
        bench.log(&format!("logs/2026-01-31-10-00-{second}-A"), &format!("line {second}\n"));
    }
    done(&bench.pass(&keep).await);
    bench.bed.remove(LOGS, "logs/2026-01-31-10-00-12-A");
    bench.log("logs/2026-01-31-10-00-20-A", "line 20\n");
    done(&bench.pass(&keep).await);
    let manifests = bench.bed.keys_under(OUT, "rollup/_manifests/");
    let manifest = bench.bed.object(OUT, &manifests[0]).expect("it is there").bytes();
    let manifest = String::from_utf8(manifest.to_vec()).expect("JSON");
    assert!(!manifest.contains("10-00-12-A"), "{manifest}");
    assert!(manifest.contains("10-00-11-A") && manifest.contains("10-00-20-A"), "{manifest}");
    assert_eq!(bench.text("2026-01-31").lines().count(), 11);
}

#[tokio::test(start_paused = true)]
async fn overwrite_rebuilds_a_rollup_from_the_listed_sources() {
    let mut bench = Bench::new();
    for second in 10..30 {
        bench.log(&format!("logs/2026-01-31-10-00-{second}-A"), &format!("line {second}\n"));
    }
    bench.bed.put(OUT, "rollup/2026-01-31", "somebody's bytes without a newline");
    let overwrite = [("ROLLUP_KEEP", "true"), ("ROLLUP_OVERWRITE", "true"), ("ROLLUP_BATCH_OBJECTS", "6")];
    done(&bench.pass(&overwrite).await);
    done(&bench.pass(&overwrite).await);
    assert_eq!(bench.text("2026-01-31").lines().count(), 20);
    assert_eq!(bench.bed.keys(LOGS).len(), 20);
    done(&bench.pass(&[]).await);
    assert!(bench.bed.keys(LOGS).is_empty());
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_rollup_of_another_tool_is_appended_to_on_a_line_of_its_own() {
    for size in [10, 6 * MIB] {
        let mut bench = Bench::new();
        let old = "x".repeat(size);
        bench.bed.put(OUT, "rollup/2026-01-31", old.clone());
        bench.log("logs/2026-01-31-10-00-00-A", "ours\n");
        done(&bench.pass(&[]).await);
        assert_eq!(bench.text("2026-01-31"), old + "\nours\n");
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_keeps_metadata_content_type_and_tags_of_the_rollup() {
    for size in [10, 6 * MIB] {
        let mut bench = Bench::new();
        bench.bed.put_with(OUT, "rollup/2026-01-31", line('x', size), |object| {
            object.metadata.insert(String::from("owner"), String::from("audit"));
            object.content_type = Some(String::from("text/plain"));
            object.tags.insert(String::from("cost center"), String::from("a+b&c"));
            object.storage_class = Some(String::from("STANDARD_IA"));
        });
        bench.log("logs/2026-01-31-10-00-00-A", "ours\n");
        done(&bench.pass(&[]).await);
        let rollup = bench.bed.object(OUT, "rollup/2026-01-31").expect("it is there");
        assert_eq!(rollup.metadata.get("owner").map(String::as_str), Some("audit"));
        assert!(rollup.metadata.contains_key("rollup-batch"));
        assert_eq!(rollup.content_type.as_deref(), Some("text/plain"));
        assert_eq!(rollup.tags.get("cost center").map(String::as_str), Some("a+b&c"));
        assert_eq!(rollup.storage_class.as_deref(), Some("STANDARD_IA"));
    }
}

/// Create, append below and above 5 MiB, two groups, late logs: the scenario of the lost answers below.
async fn scenario(bench: &mut Bench) {
    bench.log("logs/2026-01-31-10-00-00-A", &line('a', 4 * MIB));
    bench.log("logs/web/2026-01-31-10-00-00-A", "w\n");
    done(&bench.pass(&[]).await);
    bench.log("logs/2026-01-31-11-00-00-B", &line('b', MIB));
    bench.log("logs/2026-01-31-12-00-00-C", "c\n");
    bench.log("logs/2026-01-31-13-00-00-D", "d\n");
    bench.log("logs/2026-01-31-14-00-00-E", "e\n");
    bench.log("logs/web/2026-01-31-11-00-00-B", "w2\n");
    bench.bed.forget_requests();
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_at_any_request_loses_and_doubles_nothing() {
    let settings = [("ROLLUP_BATCH_OBJECTS", "2")];
    let mut bench = Bench::new();
    scenario(&mut bench).await;
    done(&bench.pass(&settings).await);
    let requests = bench.bed.requests().len() as u64;
    for request in 0..requests {
        for kind in [
            FaultKind::LostAnswer,
            FaultKind::ResetBefore,
            FaultKind::Status(503, "SlowDown"),
            FaultKind::StatusAfter(500, "InternalError"),
        ] {
            let mut bench = Bench::new();
            scenario(&mut bench).await;
            bench.bed.fault(When::any().skip(request), kind.clone());
            let ended = bench.pass(&settings).await;
            assert!(ended.exit_code() == 0, "{kind:?} at {request}: {:?} {:#?}", ended.error, ended.report);
            bench.bed.clear_faults();
            bench.once();
            assert!(bench.bed.keys(LOGS).is_empty(), "{kind:?} at {request}: {:?}", bench.bed.keys(LOGS));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_arrives_an_hour_late_finds_its_condition_failed() {
    for operation in [Operation::PutObject, Operation::CompleteMultipartUpload] {
        let size = if operation == Operation::PutObject { 10 } else { 6 * MIB };
        let mut bench = Bench::new();
        bench.log("logs/2026-01-31-10-00-00-A", &line('a', size));
        let late = FaultKind::AppliedLater(Duration::from_hours(1));
        bench.bed.fault(When::operation(operation).key("rollup/2026-01-31"), late);
        done(&bench.pass(&[]).await);
        tokio::time::sleep(Duration::from_hours(2)).await;
        assert_eq!(bench.text("2026-01-31").len(), size);
        bench.balanced();
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_level_settles_what_the_other_level_left() {
    let mut bench = Bench::new();
    for second in 10..20 {
        bench.log(&format!("logs/2026-01-31-10-00-{second}-A"), &format!("line {second}\n"));
    }
    let delete = bench.bed.pause(When::operation(Operation::DeleteObjects), Moment::Before);
    tokio::select! {
        biased;
        () = delete.reached() => {}
        _ = bench.pass(&[]) => panic!("the pass ended before its deletes"),
    }
    drop(delete);
    bench.log("logs/2026-01-31-10-00-20-A", "line 20\n");
    done(&bench.pass(&[("ROLLUP_LEVEL", "month")]).await);
    assert_eq!(bench.text("2026-01-31").lines().count(), 10);
    assert_eq!(bench.text("2026-01").lines().count(), 1);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn shards_share_the_rollups_and_settle_for_each_other_what_is_theirs() {
    let mut bench = Bench::new();
    let spec = Spec { prefix: String::from("logs/"), groups: 3, days: 5, objects: 200, ..Spec::default() };
    bench.fill(&spec);
    let shard = |index| [("ROLLUP_SHARD_COUNT", "3"), ("ROLLUP_SHARD_INDEX", index)];
    let (zero, one, two) = (shard("0"), shard("1"), shard("2"));
    let (a, b, c) = tokio::join!(bench.pass(&zero), bench.pass(&one), bench.pass(&two));
    for ended in [&a, &b, &c] {
        done(ended);
        assert!(ended.report.rollups.created > 0);
    }
    assert_eq!(a.report.rollups.created + b.report.rollups.created + c.report.rollups.created, 15);
    bench.balanced();
}

/// The group of the first log object that each shard reads.
async fn first_groups(bench: &Bench, shards: usize) -> Vec<String> {
    let mut groups = Vec::new();
    for shard in 0..shards {
        let (before, there) = (bench.bed.requests().len(), bench.bed.keys(LOGS).len());
        let (count, index) = (shards.to_string(), shard.to_string());
        let ended = bench.pass(&[("ROLLUP_SHARD_COUNT", &count), ("ROLLUP_SHARD_INDEX", &index)]).await;
        done(&ended);
        assert_eq!(ended.report.found.objects, there as u64, "each is listed once");
        let requests = bench.bed.requests().split_off(before);
        let first = requests.iter().filter(|request| request.operation == Operation::GetObject);
        let key = first.filter_map(|request| request.key.clone()).find(|key| key.starts_with("logs/"));
        groups.push(key.expect("each has rollups of its own").split("2026").next().expect("a group").to_owned());
    }
    groups
}

#[rstest]
#[case::folders_of_the_prefix("logs/")]
#[case::folders_further_down("logs/123456789012/eu-west-1/")]
#[tokio::test(start_paused = true)]
async fn each_shard_begins_with_a_group_of_its_own(#[case] above: &str) {
    let mut bench = Bench::new();
    let groups = ["a", "b", "c", "d"].map(|group| format!("{above}{group}/"));
    for (group, day) in groups.iter().flat_map(|group| (1..=31).map(move |day| (group, day))) {
        bench.log(&format!("{group}2026-01-{day:02}-10-00-00-A"), &format!("{group} {day}\n"));
    }
    assert_eq!(first_groups(&bench, 4).await, groups);
    bench.balanced();
    assert!(bench.bed.keys(LOGS).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rollup_on_both_sides_of_a_shards_beginning_has_each_line_once_however_often_its_sources_are_read() {
    // The groups `/web/` and `web/` share their rollups, and shard 1 begins at the second.
    let shard = Shard::new(2, 1).expect("there is one");
    let days = (1..=31).map(|day| format!("2026-01-{day:02}"));
    let mut own = days.filter(|day| shard.takes(&RollupName::parse(&format!("web/{day}")).expect("a name")));
    let day = own.next().expect("half of them are");
    let mut bench = Bench::new();
    bench.log(&format!("logs//web/{day}-10-00-00-A"), "/web/\n");
    for hour in 10..13 {
        bench.log(&format!("logs/web/{day}-{hour}-00-00-A"), &format!("web/ {hour}\n"));
        let settings = [("ROLLUP_KEEP", "true"), ("ROLLUP_SHARD_COUNT", "2"), ("ROLLUP_SHARD_INDEX", "1")];
        done(&bench.pass(&settings).await);
    }
    assert_eq!(bench.text(&format!("web/{day}")), "web/ 10\n/web/\nweb/ 11\nweb/ 12\n");
    let of_a_source = |request: &testbed::Recorded| request.key.as_deref().is_some_and(|key| key.starts_with("logs/"));
    let looks = bench.bed.requests().into_iter().filter(|request| request.operation == Operation::HeadObject);
    assert_eq!(looks.filter(of_a_source).count(), 0, "of what the other stretch lists, none is taken for gone");
    done(&bench.pass(&[]).await);
    assert!(bench.bed.keys(LOGS).is_empty());
    bench.balanced();
}

fn lines(bench: &mut Bench, seconds: std::ops::Range<u32>) {
    for second in seconds {
        bench.log(&format!("logs/2026-01-31-10-00-{second}-A"), &format!("line {second}\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_that_add_nothing_do_not_hold_up_the_pass() {
    let keep = [("ROLLUP_KEEP", "true"), ("ROLLUP_BATCH_OBJECTS", "10")];
    let mut bench = Bench::with(Settings { latency: Duration::from_millis(30), ..Settings::default() });
    lines(&mut bench, 10..59);
    done(&bench.pass(&keep).await);
    let again = bench.pass(&keep).await;
    done(&again);
    assert_eq!(again.report.rolled_up.objects, 0);
}

#[tokio::test(start_paused = true)]
async fn the_batches_of_a_rollup_that_failed_do_not_hold_up_the_pass() {
    let mut bench = Bench::with(Settings { latency: Duration::from_millis(30), ..Settings::default() });
    lines(&mut bench, 10..59);
    bench
        .bed
        .put_with(OUT, "rollup/2026-01-31", "old\n", |object| object.storage_class = Some(String::from("GLACIER")));
    let ended = bench.pass(&[("ROLLUP_BATCH_OBJECTS", "10")]).await;
    assert_eq!((ended.exit_code(), ended.report.rollups.failed), (1, 1));
    assert_eq!(bench.bed.keys(LOGS).len(), 49);
}

#[tokio::test(start_paused = true)]
async fn overwrite_with_a_chain_rebuilds_from_every_listed_source() {
    let mut bench = Bench::with(Settings { latency: Duration::from_millis(30), ..Settings::default() });
    bench.log("logs/2026-01-31-09-00-00-A", &line('a', 6 * MIB));
    lines(&mut bench, 10..40);
    let keep = [("ROLLUP_KEEP", "true"), ("ROLLUP_BATCH_OBJECTS", "10")];
    done(&bench.pass(&keep).await);
    for _ in 0..2 {
        let overwrite = [keep[0], keep[1], ("ROLLUP_OVERWRITE", "true")];
        let ended = bench.pass(&overwrite).await;
        done(&ended);
        assert_eq!((ended.report.rollups.replaced, ended.report.rollups.appended), (1, 3));
        bench.ledger.check_testbed_kept(&bench.bed, (OUT, "rollup/"), (LOGS, "logs/")).expect("every line once");
    }
}

#[tokio::test(start_paused = true)]
async fn overwrite_replaces_a_rollup_of_two_groups_once() {
    let mut bench = Bench::new();
    for at in 10..30 {
        bench.log(&format!("logs/web2026-01-31-10-00-{at}-A"), &format!("beside {at}\n"));
        bench.log(&format!("logs/web/2026-01-31-10-00-{at}-A"), &format!("inside {at}\n"));
        bench.log(&format!("logs/web0/2026-01-31-10-00-{at}-A"), &format!("between {at}\n"));
    }
    let overwrite = [("ROLLUP_KEEP", "true"), ("ROLLUP_OVERWRITE", "true")];
    for _ in 0..2 {
        done(&bench.pass(&overwrite).await);
        bench.ledger.check_testbed_kept(&bench.bed, (OUT, "rollup/"), (LOGS, "logs/")).expect("every line once");
    }
}

#[tokio::test(start_paused = true)]
async fn overwrite_replaces_a_rollup_once_though_its_second_group_is_listed_after_the_first_is_done() {
    let mut bench = Bench::new();
    lines_of(&mut bench, "web/", 10..20);
    lines_of(&mut bench, "web", 10..20);
    // More than a page of the listing stands between the two groups.
    for number in 0..1100 {
        bench.log(&format!("logs/web0/2026-01-31-10-00-00-{number:04}"), &format!("between {number}\n"));
    }
    let overwrite = [("ROLLUP_KEEP", "true"), ("ROLLUP_OVERWRITE", "true")];
    for _ in 0..2 {
        let listing = When::operation(Operation::ListObjectsV2).bucket(LOGS);
        let slow = bench.bed.fault(listing.skip(1).times(1), FaultKind::Slow(2_000));
        done(&bench.pass(&overwrite).await);
        assert_eq!(slow.hits(), 1);
        bench.ledger.check_testbed_kept(&bench.bed, (OUT, "rollup/"), (LOGS, "logs/")).expect("every line once");
    }
}

fn lines_of(bench: &mut Bench, group: &str, seconds: std::ops::Range<u8>) {
    for second in seconds {
        bench.log(&format!("logs/{group}2026-01-31-10-00-{second}-A"), &format!("{group} {second}\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn overwrite_spares_a_rollup_whose_sources_were_deleted() {
    let mut bench = Bench::new();
    lines(&mut bench, 10..20);
    done(&bench.pass(&[]).await);
    lines(&mut bench, 20..22);
    let ended = bench.pass(&[("ROLLUP_KEEP", "true"), ("ROLLUP_OVERWRITE", "true")]).await;
    assert_eq!(ended.exit_code(), 1);
    assert!(ended.report.failures[0].why.contains("only copy"), "{:?}", ended.report.failures);
    assert_eq!(bench.text("2026-01-31").lines().count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_denied_ends_the_pass_with_3_though_the_rollup_may_be_read() {
    let mut bench = Bench::new();
    lines(&mut bench, 10..20);
    done(&bench.pass(&[]).await);
    lines(&mut bench, 20..30);
    bench.bed.deny(Operation::PutObject, OUT, "rollup/2026-01-31");
    let ended = bench.pass(&[]).await;
    assert_eq!(ended.exit_code(), 3, "{:#?}", ended.report);
    assert!(ended.error.is_some_and(|error| error.to_string().contains("s3:PutObject")));
    bench.bed.allow_again();
    done(&bench.pass(&[]).await);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn reads_that_fail_ahead_of_a_doubtful_commit_fail_the_rollup_aloud() {
    let mut bench = Bench::with(Settings { latency: Duration::from_millis(30), ..Settings::default() });
    bench.log("logs/2026-01-31-09-00-00-A", &line('a', 6 * MIB));
    lines(&mut bench, 10..40);
    let ahead = When::operation(Operation::GetObject).key("logs/2026-01-31-10-00-25-A").always();
    bench.bed.fault(ahead, FaultKind::Status(503, "SlowDown"));
    let complete = When::operation(Operation::CompleteMultipartUpload).key("rollup/2026-01-31");
    bench.bed.fault(complete, FaultKind::AppliedLater(Duration::from_secs(100)));
    let ended = bench.pass(&[("ROLLUP_BATCH_OBJECTS", "10")]).await;
    assert_eq!(ended.exit_code(), 1, "{:#?}", ended.report);
    bench.bed.clear_faults();
    tokio::time::sleep(Duration::from_secs(200)).await;
    done(&bench.pass(&[]).await);
    bench.balanced();
}
