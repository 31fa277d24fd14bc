//! What the server does where S3-compatible servers differ: a table, for people. Nothing is asserted but that writes are
//! refused whose condition fails, since everything rests on that.
//!
//! A row is `name|observed`, in the file that `REAL_S3_ROWS` names, else on standard error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, Delete, EncodingType,
    ObjectIdentifier,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use percent_encoding::percent_decode_str;
use s3_log_rollup::store::crc_header;

use crate::place::Place;

/// A tag that no object has.
const STALE: &str = "\"00000000000000000000000000000000\"";
const ODD_KEYS: [(&str, &str); 6] = [
    ("a space", "odd/a b"),
    ("a plus", "odd/a+b"),
    ("a percent", "odd/a%20b"),
    ("a question mark", "odd/a?b=c"),
    ("a newline", "odd/a\nb"),
    ("UTF-8", "odd/k\u{e4}se-\u{65e5}"),
];

type Refusal<E> = SdkError<E, HttpResponse>;

/// The rows, and the conditions that were not enforced.
struct Table<'p> {
    place: &'p Place,
    rows: Vec<(String, String)>,
    ignored: Vec<String>,
}

#[tokio::test]
async fn the_server_refuses_writes_whose_condition_fails_and_shows_what_else_it_does() {
    let Some(place) = Place::new().await else { return };
    let mut table = Table { place: &place, rows: Vec::new(), ignored: Vec::new() };
    table.conditions_of_puts().await;
    table.conditions_of_uploads().await;
    table.many_at_once().await;
    table.copies().await;
    table.checksums().await;
    table.deletes().await;
    table.keys().await;
    table.listings().await;
    table.others().await;
    table.show();
    assert_eq!(table.ignored, [""; 0], "conditions that are not enforced");
}

/// The status, and the code where it says more.
fn seen<T, E: ProvideErrorMetadata>(answer: &Result<T, Refusal<E>>) -> String {
    match answer {
        Ok(_) => String::from("accepted"),
        Err(error) => {
            let status = error.raw_response().map_or(0, |response| response.status().as_u16());
            match (status, error.code()) {
                (0, _) => String::from("no answer"),
                (404 | 412, _) | (_, None) => status.to_string(),
                (_, Some(code)) => format!("{status} {code}"),
            }
        }
    }
}

fn line() -> Bytes {
    Bytes::from_static(b"a line of a log\n")
}

/// As long as a part must be that is not the last.
fn large() -> Bytes {
    Bytes::from(vec![b'x'; 5 << 20])
}

fn crc(body: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, body)
}

/// The most winners of a race so far, and how the others were refused.
type Races = BTreeMap<&'static str, (usize, BTreeSet<String>)>;

fn race<T, E: ProvideErrorMetadata>(name: &'static str, answers: &[Result<T, Refusal<E>>], races: &mut Races) {
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    let (most, refusals) = races.entry(name).or_default();
    *most = won.max(*most);
    refusals.extend(answers.iter().filter(|answer| answer.is_err()).map(seen));
}

/// An upload and its parts.
struct Upload {
    key: String,
    id: String,
    parts: Vec<CompletedPart>,
}

impl Table<'_> {
    fn row(&mut self, name: &str, observed: impl Into<String>) {
        self.rows.push((name.to_owned(), observed.into()));
    }

    /// A row of a write that must be refused.
    fn condition<T, E: ProvideErrorMetadata>(&mut self, name: &str, answer: &Result<T, Refusal<E>>) {
        if answer.is_ok() {
            self.ignored.push(name.to_owned());
        }
        self.row(name, seen(answer));
    }

    fn put(&self, key: &str) -> PutObjectFluentBuilder {
        self.place.client.put_object().bucket(&self.place.rollups).key(key).body(line().into())
    }

    /// Writes an object and returns its tag.
    async fn object(&self, key: &str, body: Bytes) -> String {
        let crc = crc_header(crc(&body));
        let put = self.put(key).checksum_crc64_nvme(crc).body(body.into()).send().await;
        put.expect("an object is written").e_tag.expect("an ETag")
    }

    async fn begin(&self, key: &str, checksummed: bool) -> Upload {
        let mut create = self.place.client.create_multipart_upload().bucket(&self.place.rollups).key(key);
        if checksummed {
            create = create.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject);
        }
        let id = create.metadata("rollup-batch", "x").send().await.expect("an upload begins").upload_id.expect("an id");
        Upload { key: key.to_owned(), id, parts: Vec::new() }
    }

    async fn add(&self, upload: &mut Upload, body: Bytes, checksummed: bool) {
        let number = i32::try_from(upload.parts.len()).expect("few parts") + 1;
        let crc = checksummed.then(|| crc_header(crc(&body)));
        let part = self.place.client.upload_part().bucket(&self.place.rollups).key(&upload.key).upload_id(&upload.id);
        let part = part.part_number(number).set_checksum_crc64_nvme(crc.clone()).body(body.into()).send().await;
        let etag = part.expect("a part is sent").e_tag;
        let part = CompletedPart::builder().part_number(number).set_e_tag(etag).set_checksum_crc64_nvme(crc);
        upload.parts.push(part.build());
    }

    /// Copies the object under the upload's key into its next part, as a rollup is appended to.
    async fn copy(
        &self,
        upload: &mut Upload,
        etag: &str,
    ) -> Result<(), Refusal<aws_sdk_s3::operation::upload_part_copy::UploadPartCopyError>> {
        let number = i32::try_from(upload.parts.len()).expect("few parts") + 1;
        let place = self.place;
        let copy = place.client.upload_part_copy().bucket(&place.rollups).key(&upload.key).upload_id(&upload.id);
        let copy = copy.part_number(number).copy_source(format!("{}/{}", place.rollups, upload.key));
        let part = copy.copy_source_if_match(etag).send().await?.copy_part_result.expect("a part");
        let done = CompletedPart::builder().part_number(number).set_e_tag(part.e_tag);
        upload.parts.push(done.set_checksum_crc64_nvme(part.checksum_crc64_nvme).build());
        Ok(())
    }

    fn complete(
        &self,
        upload: &Upload,
    ) -> aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(upload.parts.clone())).build();
        let complete = self.place.client.complete_multipart_upload().bucket(&self.place.rollups).key(&upload.key);
        complete.upload_id(&upload.id).multipart_upload(parts)
    }

    async fn conditions_of_puts(&mut self) {
        self.object("put", line()).await;
        let answer = self.put("put").if_none_match("*").send().await;
        self.condition("Put If-None-Match", &answer);
        let answer = self.put("put").if_match(STALE).send().await;
        self.condition("Put If-Match, stale", &answer);
        let answer = self.put("put-missing").if_match(STALE).send().await;
        self.condition("Put If-Match, no key", &answer);
    }

    async fn conditions_of_uploads(&mut self) {
        self.object("upload", line()).await;
        let mut upload = self.begin("upload", false).await;
        self.add(&mut upload, line(), false).await;
        let answer = self.complete(&upload).if_none_match("*").send().await;
        self.condition("Complete If-None-Match", &answer);
        // Some servers drop the upload with the first refusal, which would hide what the next condition does.
        let mut upload = self.begin("upload", false).await;
        self.add(&mut upload, line(), false).await;
        let answer = self.complete(&upload).if_match(STALE).send().await;
        self.condition("Complete If-Match, stale", &answer);
        let again = self.complete(&upload).send().await;
        let kept = if again.is_ok() { String::from("kept") } else { format!("gone: {}", seen(&again)) };
        let mut upload = self.begin("upload-missing", false).await;
        self.add(&mut upload, line(), false).await;
        let answer = self.complete(&upload).if_match(STALE).send().await;
        self.condition("Complete If-Match, no key", &answer);
        self.row("the upload after a 412", kept);
    }

    /// The winners of writes that race: more than one is a line lost.
    async fn many_at_once(&mut self) {
        const ROUNDS: u32 = 10;
        let mut races = Races::new();
        for round in 0..ROUNDS {
            let key = format!("race-{round}");
            let created = (0..8).map(|_| self.put(&key).if_none_match("*").send());
            race("8 Put If-None-Match at once", &futures::future::join_all(created).await, &mut races);
            let etag = self.object(&key, line()).await;
            let put = |n: u32| self.put(&key).body(Bytes::from(format!("{round} {n}\n")).into()).if_match(&etag).send();
            race("8 Put If-Match at once", &futures::future::join_all((0..8).map(put)).await, &mut races);
            let etag = self.object(&key, line()).await;
            let mut uploads = Vec::new();
            for n in 0..8 {
                let mut upload = self.begin(&key, false).await;
                self.add(&mut upload, Bytes::from(format!("{round} {n}\n")), false).await;
                uploads.push(upload);
            }
            let completed = uploads.iter().map(|upload| self.complete(upload).if_match(&etag).send());
            race("8 Complete If-Match at once", &futures::future::join_all(completed).await, &mut races);
        }
        for (name, (won, refusals)) in races {
            let refusals: Vec<_> = refusals.into_iter().collect();
            let text = if won == 1 { String::from("1 wins") } else { format!("UP TO {won} WIN") };
            self.row(name, format!("{text}, others {}", refusals.join(", ")));
        }
    }

    async fn copies(&mut self) {
        let etag = self.object("copy", large()).await;
        let mut upload = self.begin("copy", false).await;
        let stale = self.copy(&mut upload, STALE).await;
        self.row("UploadPartCopy, stale", seen(&stale));
        let copied = self.copy(&mut upload, &etag).await;
        let mut answer = seen(&copied);
        if copied.is_ok() {
            self.add(&mut upload, line(), false).await;
            answer = seen(&self.complete(&upload).if_match(&etag).send().await);
        }
        let whole = self.place.get(&self.place.rollups, "copy").await == [large(), line()].concat();
        self.row("append by UploadPartCopy", if whole { answer } else { format!("{answer}, not the bytes") });
    }

    async fn checksums(&mut self) {
        let whole = crc(&[large(), line()].concat());
        let etag = self.object("checksums", large()).await;
        let mut upload = self.begin("checksums", true).await;
        let copied = self.copy(&mut upload, &etag).await;
        let mut observed = format!("copy: {}", seen(&copied));
        if copied.is_ok() {
            self.add(&mut upload, line(), true).await;
            let complete = self.complete(&upload).checksum_type(ChecksumType::FullObject);
            observed = seen(&complete.checksum_crc64_nvme(crc_header(whole)).send().await);
        }
        self.row("CRC64NVME with a copied part", observed);

        let mut upload = self.begin("checksums-wrong", true).await;
        self.add(&mut upload, line(), true).await;
        let complete = self.complete(&upload).checksum_type(ChecksumType::FullObject);
        let answer = complete.checksum_crc64_nvme(crc_header(!crc(&line()))).send().await;
        self.row("Complete, wrong CRC64NVME", seen(&answer));

        let put = self.put("checksums-put").checksum_crc64_nvme(crc_header(!crc(&line()))).send().await;
        self.row("Put, wrong CRC64NVME", seen(&put));

        self.object("checksums-shown", line()).await;
        let head = self.place.client.head_object().bucket(&self.place.rollups).key("checksums-shown");
        let head = head.checksum_mode(ChecksumMode::Enabled).send().await.expect("HEAD");
        let shown = match (head.checksum_crc64_nvme == Some(crc_header(crc(&line()))), head.checksum_type) {
            (true, Some(kind)) => kind.as_str().to_owned(),
            (true, None) => String::from("shown, no type"),
            (false, _) => String::from("not shown"),
        };
        self.row("CRC64NVME in HEAD", shown);
    }

    async fn is_there(&self, key: &str) -> bool {
        self.place.client.head_object().bucket(&self.place.rollups).key(key).send().await.is_ok()
    }

    async fn deletes(&mut self) {
        let (client, bucket) = (&self.place.client, &self.place.rollups);
        self.object("delete", line()).await;
        let answer = client.delete_object().bucket(bucket).key("delete").if_match(STALE).send().await;
        let fate = if self.is_there("delete").await { "kept" } else { "DELETED" };
        let observed = format!("{fate}: {}", seen(&answer));
        self.row("DeleteObject, wrong ETag", observed);

        self.object("delete", line()).await;
        let object = ObjectIdentifier::builder().key("delete").e_tag(STALE).build().expect("a key");
        let objects = Delete::builder().objects(object).build().expect("an object");
        let answer = client.delete_objects().bucket(bucket).delete(objects).send().await;
        let told = match &answer {
            Ok(answer) => answer
                .errors()
                .first()
                .and_then(|e| e.code())
                .unwrap_or("accepted")
                .replace("PreconditionFailed", "412"),
            Err(_) => seen(&answer),
        };
        let fate = if self.is_there("delete").await { "kept" } else { "DELETED" };
        self.row("DeleteObjects, wrong ETag", format!("{fate}: {told}"));

        let answer = client.delete_object().bucket(bucket).key("delete-missing").if_match(STALE).send().await;
        self.row("DeleteObject ETag, no key", seen(&answer));
    }

    async fn keys(&mut self) {
        let place = self.place;
        let put = self.put("slashes/a//b").send().await;
        let keys: Vec<_> = place.list(&place.rollups, "slashes/").await.into_iter().map(|it| it.key).collect();
        let observed = match (put.is_ok(), keys.first()) {
            (false, _) => seen(&put),
            (true, Some(key)) if key == "slashes/a//b" => String::from("its own key"),
            (true, Some(key)) => format!("stored as {}", key.trim_start_matches("slashes/")),
            (true, None) => String::from("not listed"),
        };
        self.row("key a//b", observed);
        for (name, key) in ODD_KEYS {
            let put = self.put(key).send().await;
            let observed = match &put {
                Err(_) => seen(&put),
                Ok(_) => self.listed_as(key).await,
            };
            self.row(&format!("key with {name}"), observed);
            // Or one that breaks the listing would break that of the next key.
            let _ = place.client.delete_object().bucket(&place.rollups).key(key).send().await;
        }
    }

    /// How a listing with `encoding-type=url` shows the only odd key there is.
    async fn listed_as(&self, key: &str) -> String {
        let list = self.place.client.list_objects_v2().bucket(&self.place.rollups).prefix("odd/");
        let page = match list.encoding_type(EncodingType::Url).send().await {
            Ok(page) => page,
            Err(error) => return format!("listing: {}", seen(&Err::<(), _>(error))),
        };
        let shown = page.contents().first().and_then(|object| object.key()).unwrap_or_default();
        let decoded = percent_decode_str(&shown.replace('+', " ")).decode_utf8_lossy().into_owned();
        let text = match (page.encoding_type.is_some(), shown == key, decoded == key) {
            (true, false, true) => "encoded",
            (true, true, true) => "raw, said to be encoded",
            (true, true, false) => "RAW, SAID TO BE ENCODED",
            (false, true, _) => "raw",
            (false, false, true) => "ENCODED, NOT SAID SO",
            (_, false, false) => return format!("LISTED AS {shown:?}"),
        };
        text.to_owned()
    }

    async fn listings(&mut self) {
        let place = self.place;
        let bytewise = ["list/a-1", "list/a/1", "list/a0", "list/b", "list/\u{e4}"];
        for key in bytewise {
            self.object(key, line()).await;
        }
        let list = || place.client.list_objects_v2().bucket(&place.rollups).prefix("list/");
        let all: Vec<_> = place.list(&place.rollups, "list/").await.into_iter().map(|it| it.key).collect();
        let mut by_folder = bytewise.to_vec();
        by_folder.sort_by_key(|key| key.split('/').collect::<Vec<_>>());
        let order = match &all {
            all if *all == bytewise => "bytewise",
            all if *all == by_folder => "a/1 before a-1",
            _ => "NOT SORTED",
        };
        self.row("order of a listing", order);
        let mut right = true;
        for (at, start) in all.iter().enumerate() {
            let page = list().start_after(start).send().await.expect("a listing");
            let keys: Vec<_> = page.contents().iter().filter_map(|object| object.key()).collect();
            right &= keys == all[at + 1..];
        }
        self.row("start-after a key", if right { "fine" } else { "WRONG" });
        let pages = list().max_keys(2).into_paginator().send().try_collect().await.expect("pages");
        let keys: Vec<_> = pages.iter().flat_map(ListObjectsV2Output::contents).filter_map(|it| it.key()).collect();
        self.row("pages of 2 keys", if keys == all { "fine" } else { "WRONG" });
    }

    async fn others(&mut self) {
        let (client, bucket) = (&self.place.client, &self.place.rollups);
        let answer = client.list_objects_v2().bucket(bucket).expected_bucket_owner("999988887777").send().await;
        self.row("a wrong bucket owner", seen(&answer));

        self.put("metadata").metadata("rollup-batch", "x").send().await.expect("an object is written");
        let mut upload = self.begin("metadata-upload", false).await;
        self.add(&mut upload, line(), false).await;
        self.complete(&upload).send().await.expect("an upload ends");
        let mut kept = true;
        for key in ["metadata", "metadata-upload"] {
            let head = client.head_object().bucket(bucket).key(key).send().await.expect("HEAD");
            kept &= head.metadata().and_then(|metadata| metadata.get("rollup-batch")).is_some_and(|id| id == "x");
        }
        self.row("metadata on Put and Create", if kept { "fine" } else { "LOST" });

        let put = self.put("tags").tagging("team=logs").send().await;
        let created = client.create_multipart_upload().bucket(bucket).key("tags-upload").tagging("team=logs");
        let created = created.send().await;
        let mut observed = vec![seen(&put), seen(&created)];
        if let Ok(created) = created {
            let id = created.upload_id.expect("an id");
            let mut upload = Upload { key: String::from("tags-upload"), id, parts: Vec::new() };
            self.add(&mut upload, line(), false).await;
            self.complete(&upload).send().await.expect("an upload ends");
            for key in ["tags", "tags-upload"] {
                let tags = client.get_object_tagging().bucket(bucket).key(key).send().await;
                let kept = tags.is_ok_and(|tags| tags.tag_set().len() == 1);
                observed.push(if kept { String::from("kept") } else { format!("not kept on {key}") });
            }
        }
        observed.dedup();
        let observed = observed.join(", ");
        self.row("tags on Put and Create", if observed == "accepted, kept" { "fine" } else { &observed });
    }

    fn show(&self) {
        let mut text = String::new();
        for (name, observed) in &self.rows {
            let observed: String = observed.chars().map(|c| if c == '|' || c.is_control() { '/' } else { c }).collect();
            writeln!(text, "{name}|{observed}").expect("a string");
        }
        match std::env::var_os("REAL_S3_ROWS") {
            Some(path) => std::fs::write(path, text).expect("the rows are written"),
            None => eprintln!("{text}"),
        }
    }
}
