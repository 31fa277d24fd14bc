//! Multipart uploads: the rules for parts, copied parts, checksums of the whole.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use testbed::{Quirks, Settings, Testbed};

use crate::{answer, client, logs, told};

const MIB: usize = 1 << 20;

pub(crate) fn completed(parts: &[(i32, &str)]) -> CompletedMultipartUpload {
    let parts = parts.iter().map(|(number, etag)| CompletedPart::builder().part_number(*number).e_tag(*etag).build());
    CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build()
}

fn crc_text(crc: u64) -> String {
    base64::prelude::BASE64_STANDARD.encode(crc.to_be_bytes())
}

async fn create(client: &Client, key: &str, algorithm: Option<ChecksumAlgorithm>) -> String {
    let create = client.create_multipart_upload().bucket("logs").key(key).set_checksum_algorithm(algorithm);
    create.send().await.unwrap().upload_id.unwrap()
}

async fn part(client: &Client, key: &str, id: &str, number: i32, body: Vec<u8>) -> String {
    let part = client.upload_part().bucket("logs").key(key).upload_id(id).part_number(number);
    part.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).body(body.into()).send().await.unwrap().e_tag.unwrap()
}

/// The upload id and the list of its one part.
pub(crate) async fn upload_of_one_part(
    client: &Client,
    key: &str,
    body: &'static str,
) -> (String, CompletedMultipartUpload) {
    let id = create(client, key, Some(ChecksumAlgorithm::Crc64Nvme)).await;
    let etag = part(client, key, &id, 1, body.into()).await;
    (id, completed(&[(1, &etag)]))
}

#[tokio::test]
async fn an_append_copies_the_old_bytes_and_proves_the_whole() {
    let (bed, client) = logs();
    let old = vec![b'a'; 6 * MIB];
    let old_etag = bed.put("logs", "r", old.clone());
    let create = client.create_multipart_upload().bucket("logs").key("r").metadata("rollup-batch", "x");
    let create = create.content_type("text/plain").tagging("a=b").checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let created = create.checksum_type(ChecksumType::FullObject).send().await.unwrap();
    let id = created.upload_id().unwrap();
    let copy = |etag: &str| {
        let copy = client.upload_part_copy().bucket("logs").key("r").upload_id(id).part_number(1);
        copy.copy_source("logs/r").copy_source_if_match(etag).send()
    };
    assert_eq!(told(copy("\"stale\"").await), answer(412, "PreconditionFailed"));
    let copied = copy(&old_etag).await.unwrap().copy_part_result.unwrap();
    let crc_old = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &old);
    assert_eq!(copied.checksum_crc64_nvme(), Some(crc_text(crc_old).as_str()));
    let second = part(&client, "r", id, 2, b"new line\n".to_vec()).await;

    let whole = [&old[..], b"new line\n"].concat();
    let crc = crc_text(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &whole));
    let complete = |crc: &str| {
        let complete = client.complete_multipart_upload().bucket("logs").key("r").upload_id(id);
        let complete = complete.checksum_crc64_nvme(crc).checksum_type(ChecksumType::FullObject).if_match(&old_etag);
        complete.multipart_upload(completed(&[(1, copied.e_tag().unwrap()), (2, &second)])).send()
    };
    assert_eq!(told(complete("AAAAAAAAAAA=").await), answer(400, "BadDigest"));
    assert_eq!(bed.uploads("logs").len(), 1);
    let done = complete(&crc).await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""));
    assert_eq!(done.checksum_crc64_nvme(), Some(crc.as_str()));
    assert_eq!(told(complete(&crc).await), answer(404, "NoSuchUpload"));

    let object = bed.object("logs", "r").unwrap();
    assert_eq!(object.bytes(), whole);
    assert_eq!((object.metadata["rollup-batch"].as_str(), object.tags["a"].as_str()), ("x", "b"));
    let head = client.head_object().bucket("logs").key("r").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some(crc.as_str()));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
}

#[tokio::test]
async fn parts_follow_the_rules() {
    let (_bed, client) = logs();
    let id = create(&client, "k", None).await;
    let small = part(&client, "k", &id, 1, b"small".to_vec()).await;
    let large = part(&client, "k", &id, 2, vec![b'x'; 5 * MIB]).await;
    let complete = |parts: &[(i32, &str)]| {
        let complete = client.complete_multipart_upload().bucket("logs").key("k").upload_id(&id);
        complete.multipart_upload(completed(parts)).send()
    };
    assert_eq!(told(complete(&[(1, &small), (2, &large)]).await), answer(400, "EntityTooSmall"));
    assert_eq!(told(complete(&[(2, &large), (1, &small)]).await), answer(400, "InvalidPartOrder"));
    assert_eq!(told(complete(&[(1, "\"other\"")]).await), answer(400, "InvalidPart"));
    assert_eq!(told(complete(&[(3, &small)]).await), answer(400, "InvalidPart"));
    let beyond = client.upload_part().bucket("logs").key("k").upload_id(&id).part_number(10_001);
    assert_eq!(told(beyond.body(ByteStream::from_static(b"")).send().await), answer(400, "InvalidArgument"));
    assert_eq!(told(complete(&[(2, &large)]).await), answer(200, ""));
}

#[tokio::test]
async fn uploads_are_listed_and_aborted() {
    let (bed, client) = logs();
    let id = create(&client, "r/b", Some(ChecksumAlgorithm::Crc64Nvme)).await;
    create(&client, "r/a", None).await;
    create(&client, "other", None).await;
    let listed = client.list_multipart_uploads().bucket("logs").prefix("r/").max_uploads(1).send().await.unwrap();
    assert_eq!((listed.uploads()[0].key(), listed.is_truncated()), (Some("r/a"), Some(true)));
    let rest = client.list_multipart_uploads().bucket("logs").prefix("r/");
    let rest = rest.set_key_marker(listed.next_key_marker).set_upload_id_marker(listed.next_upload_id_marker);
    let rest = rest.send().await.unwrap();
    assert_eq!(rest.uploads()[0].upload_id(), Some(id.as_str()));
    assert_eq!(rest.uploads()[0].checksum_algorithm(), Some(&ChecksumAlgorithm::Crc64Nvme));
    let abort = || client.abort_multipart_upload().bucket("logs").key("r/b").upload_id(&id).send();
    assert_eq!(told(abort().await), answer(200, ""));
    assert_eq!(told(abort().await), answer(404, "NoSuchUpload"));
    assert_eq!(bed.uploads("logs").len(), 2);
}

#[tokio::test]
async fn a_part_with_another_checksum_than_its_upload_is_refused() {
    let (_bed, client) = logs();
    let id = create(&client, "k", Some(ChecksumAlgorithm::Crc64Nvme)).await;
    let part = client.upload_part().bucket("logs").key("k").upload_id(&id).part_number(1);
    let part = part.checksum_algorithm(ChecksumAlgorithm::Crc32).body(ByteStream::from_static(b"x"));
    assert_eq!(told(part.send().await), answer(400, "InvalidRequest"));
}

#[tokio::test]
async fn minio_refuses_a_copied_part_in_an_upload_with_crc64nvme() {
    let quirks = Quirks { refuse_checksum_with_copied_part: true, ..Quirks::default() };
    let bed = Testbed::new(Settings { quirks, ..Settings::default() });
    bed.create_bucket("logs");
    bed.put("logs", "r", "old\n");
    let client = client(&bed);
    for (algorithm, expected) in
        [(Some(ChecksumAlgorithm::Crc64Nvme), answer(400, "InvalidArgument")), (None, answer(200, ""))]
    {
        let id = create(&client, "r", algorithm).await;
        let copy = client.upload_part_copy().bucket("logs").key("r").upload_id(id).part_number(1);
        assert_eq!(told(copy.copy_source("logs/r").send().await), expected);
    }
}

/// Six GiB in the memory of one chunk, copied in two ranges; one part may not exceed 5 GiB.
#[tokio::test]
async fn a_large_object_is_copied_without_its_bytes() {
    let (bed, client) = logs();
    let line = b"0123456789abcde\n".repeat(MIB / 16);
    let etag = bed.put_virtual("logs", "r", line, 6 * 1024);
    let size = bed.object("logs", "r").unwrap().size();
    assert_eq!(size, 6 << 30);
    let id = create(&client, "copy", Some(ChecksumAlgorithm::Crc64Nvme)).await;
    let copy = |number: i32, range: Option<String>| {
        let copy = client.upload_part_copy().bucket("logs").key("copy").upload_id(&id).part_number(number);
        copy.copy_source("logs/r").copy_source_if_match(&etag).set_copy_source_range(range).send()
    };
    assert_eq!(told(copy(1, None).await), answer(400, "InvalidRequest"));
    assert_eq!(told(copy(1, Some(format!("bytes=0-{size}"))).await), answer(400, "InvalidArgument"));
    let half = size / 2 + 7;
    let first = copy(1, Some(format!("bytes=0-{}", half - 1))).await.unwrap().copy_part_result.unwrap();
    let second = copy(2, Some(format!("bytes={half}-{}", size - 1))).await.unwrap().copy_part_result.unwrap();
    let parts = completed(&[(1, first.e_tag().unwrap()), (2, second.e_tag().unwrap())]);
    let crc = crc_text(bed.object("logs", "r").unwrap().crc64nvme());
    let complete = client.complete_multipart_upload().bucket("logs").key("copy").upload_id(&id);
    complete.checksum_crc64_nvme(crc).multipart_upload(parts).send().await.unwrap();
    assert_eq!(bed.object("logs", "copy").unwrap().size(), size);
}
