//! A seeded generator of access logs as S3 delivers them: keys of every format, and lines with all their oddities.

use bytes::Bytes;
use chrono::{Datelike as _, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use crate::testbed::Testbed;

/// How S3 names the log objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `[TargetPrefix]YYYY-MM-DD-hh-mm-ss-UniqueString`
    #[default]
    Simple,
    /// `[TargetPrefix][Account]/[Region]/[Bucket]/YYYY/MM/DD/YYYY-MM-DD-hh-mm-ss-UniqueString`, the time of delivery.
    DeliveryTime,
    /// As `DeliveryTime`, but of the day of the events: hh-mm-ss is `00-00-00`.
    EventTime,
}

/// What to generate: `objects` log objects, spread evenly over groups and at random over days.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The target prefix before the group.
    pub prefix: String,
    /// How many groups: with [`Format::Simple`] a folder each below the prefix, otherwise a source bucket each.
    pub groups: usize,
    /// The first day, UTC.
    pub from: NaiveDate,
    /// How many days, at least 1.
    pub days: u32,
    /// How many objects in all, beside the empty ones.
    pub objects: usize,
    /// How many zero-byte objects in all.
    pub empty: usize,
    /// How the objects are named.
    pub format: Format,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            groups: 1,
            from: NaiveDate::from_ymd_opt(2026, 1, 31).expect("a date"),
            days: 1,
            objects: 100,
            empty: 0,
            format: Format::Simple,
        }
    }
}

/// The same seed gives the same keys and lines. Every line is unlike every other one, also of other seeds.
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    serial: u64,
    dice: fastrand::Rng,
}

const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";
const OWNER: &str = "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be";
const GROUPS: [&str; 6] = ["web", "api", "assets", "media", "backups", "exports"];
/// At most this many lines an object: some 300 bytes to a few KB.
const MAX_LINES: usize = 8;

/// Requesters; the one of a `CloudFront` origin access identity has spaces.
const REQUESTERS: [&str; 5] = [
    "-",
    OWNER,
    "arn:aws:sts::111122223333:assumed-role/deploy/session",
    "svc:s3.amazonaws.com",
    "arn:aws:iam::cloudfront:user/CloudFront Origin Access Identity E2QWRUHAPOMQZL",
];
/// The operation, the method of the request line, the status, the error code.
const REQUESTS: [(&str, &str, u16, &str); 10] = [
    ("REST.GET.OBJECT", "GET", 200, "-"),
    ("REST.GET.OBJECT", "GET", 206, "-"),
    ("REST.GET.OBJECT", "GET", 404, "NoSuchKey"),
    ("REST.HEAD.OBJECT", "HEAD", 200, "-"),
    ("REST.PUT.OBJECT", "PUT", 200, "-"),
    ("REST.PUT.PART", "PUT", 200, "-"),
    ("REST.DELETE.OBJECT", "DELETE", 204, "-"),
    ("WEBSITE.GET.OBJECT", "GET", 304, "-"),
    ("BATCH.DELETE.OBJECT", "-", 204, "-"),
    ("S3.EXPIRE.OBJECT", "-", 204, "-"),
];
/// Object names before they are encoded.
const NAMES: [&str; 5] = ["index.html", "a folder/photo 1.jpg", "100%.txt", "käse/menü.pdf", "x+y&z=1.json"];
/// Quotes inside these fields are not escaped.
const AGENTS: [&str; 5] = [
    "-",
    "curl/8.5.0",
    "aws-sdk-rust/1.3.3 os/linux lang/rust/1.94.1",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 \"quoted\" Safari/537.36",
    "S3Console/0.4, aws-internal/3",
];
const REFERERS: [&str; 3] = ["-", "https://example.com/search?q=\"exact words\"&page=2", "https://example.com/"];

fn url_encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Generator {
    /// A generator of its own world of lines.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, serial: 0, dice: fastrand::Rng::with_seed(seed) }
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.dice.usize(..choices.len())]
    }

    /// A number, or `-`.
    fn some(&mut self, limit: u64) -> String {
        if self.dice.u8(..8) == 0 { "-".to_owned() } else { self.dice.u64(..limit).to_string() }
    }

    /// One line of today's 27 fields, without its newline, of a request to `bucket`.
    pub fn line(&mut self, bucket: &str, at: NaiveDateTime) -> String {
        self.serial += 1;
        let (operation, method, status, error) = self.pick(&REQUESTS);
        let name = self.pick(&NAMES);
        let name = format!("{:x}-{:x}/{name}", self.seed, self.serial);
        let once = url_encoded(&name);
        // The service's own deletes are encoded once, all other keys twice.
        let key = if method == "-" { once.clone() } else { url_encoded(&once) };
        // All lines of a multi-object delete have the id of its one request.
        let request = if operation == "BATCH.DELETE.OBJECT" { self.serial & !7 } else { self.serial };
        let request = request.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed;
        let uri = match method {
            "-" => "-".to_owned(),
            _ => {
                format!("{method} /{bucket}/{once}?x-id={} HTTP/1.1", operation.rsplit('.').next().unwrap_or_default())
            }
        };
        let time = at.format("[%d/%b/%Y:%H:%M:%S +0000]");
        let address = format!("192.0.2.{}", self.dice.u8(..));
        let requester = self.pick(&REQUESTERS);
        let (sent, size, total, turnaround) =
            (self.some(1 << 20), self.some(1 << 30), self.some(2_000), self.some(500));
        let (referer, agent) = (self.pick(&REFERERS), self.pick(&AGENTS));
        let version = self.pick(&["-", "3HL4kqtJvjVBH40Nrjfkd", "null"]);
        let host_id = format!("s9lzHYrFp76ZVxRcpX9+5cjAnEH2ROuNkd2BHfIa6Uk{:08x}=", self.dice.u32(..));
        let security = self.pick(&[
            "SigV4 ECDHE-RSA-AES128-GCM-SHA256 AuthHeader",
            "SigV4 TLS_AES_128_GCM_SHA256 QueryString",
            "- - -",
        ]);
        let (tls, point, acl) = (
            self.pick(&["TLSv1.2", "TLSv1.3", "-"]),
            self.pick(&["-", "arn:aws:s3:us-east-1:111122223333:accesspoint/example"]),
            self.pick(&["-", "Yes"]),
        );
        format!(
            "{OWNER} {bucket} {time} {address} {requester} {request:016X} {operation} {key} \"{uri}\" {status} {error} \
             {sent} {size} {total} {turnaround} \"{referer}\" \"{agent}\" {version} {host_id} {security} \
             {bucket}.s3.{REGION}.amazonaws.com {tls} {point} {acl} {REGION}"
        )
    }

    /// The bytes of one log object: one to eight lines in no order; one object in sixteen has no final newline.
    pub fn body(&mut self, bucket: &str, at: NaiveDateTime) -> Bytes {
        let mut body = String::new();
        for _ in 0..self.dice.usize(1..=MAX_LINES) {
            let before = TimeDelta::seconds(self.dice.i64(0..7_200));
            body += &self.line(bucket, at - before);
            body.push('\n');
        }
        if self.dice.u8(..16) == 0 {
            body.pop();
        }
        body.into()
    }

    /// The key of one log object of requests to `bucket`, delivered at a time.
    pub fn key(&mut self, format: Format, target_prefix: &str, bucket: &str, at: NaiveDateTime) -> String {
        let unique = self.dice.u64(..);
        let at = if format == Format::EventTime { at.date().and_time(NaiveTime::MIN) } else { at };
        let name = at.format("%Y-%m-%d-%H-%M-%S");
        match format {
            Format::Simple => format!("{target_prefix}{name}-{unique:016X}"),
            Format::DeliveryTime | Format::EventTime => {
                let (year, month, day) = (at.year(), at.month(), at.day());
                let folder = format!("{ACCOUNT}/{REGION}/{bucket}/{year:04}/{month:02}/{day:02}");
                format!("{target_prefix}{folder}/{name}-{unique:016X}")
            }
        }
    }

    /// One log object of requests to `bucket`, delivered at a time: its key and its bytes.
    pub fn object(&mut self, format: Format, target_prefix: &str, bucket: &str, at: NaiveDateTime) -> (String, Bytes) {
        (self.key(format, target_prefix, bucket, at), self.body(bucket, at))
    }

    /// Log objects for any sink, one at a time: a real server, a ledger, a testbed.
    pub fn objects(&mut self, spec: &Spec) -> impl Iterator<Item = (String, Bytes)> + use<'_> {
        let spec = spec.clone();
        (0..spec.objects + spec.empty).map(move |number| {
            let group = number % spec.groups.max(1);
            let name = match GROUPS.get(group) {
                Some(name) => (*name).to_owned(),
                None => format!("group-{group}"),
            };
            let prefix = match spec.format {
                Format::Simple => format!("{}{name}/", spec.prefix),
                Format::DeliveryTime | Format::EventTime => spec.prefix.clone(),
            };
            let day = spec.from + Days::new(u64::from(self.dice.u32(..spec.days.max(1))));
            let at = day.and_time(NaiveTime::MIN) + TimeDelta::seconds(self.dice.i64(0..86_400));
            if number < spec.objects {
                self.object(spec.format, &prefix, &name, at)
            } else {
                (self.key(spec.format, &prefix, &name, at), Bytes::new())
            }
        })
    }

    /// Puts log objects straight into a testbed and returns their keys.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn fill(&mut self, bed: &Testbed, bucket: &str, spec: &Spec) -> Vec<String> {
        let put = |(key, body): (String, Bytes)| {
            bed.put(bucket, &key, body);
            key
        };
        self.objects(spec).map(put).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use rstest::rstest;

    #[test]
    fn a_seed_decides_everything_and_no_line_comes_twice() {
        let spec = Spec { objects: 200, groups: 8, days: 40, empty: 3, ..Spec::default() };
        let all = |seed| Generator::new(seed).objects(&spec).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        let (seven, eight) = (all(7), all(8));
        let lines: Vec<&[u8]> = seven
            .iter()
            .chain(&eight)
            .flat_map(|(_, body)| body.split(|byte| *byte == b'\n'))
            .filter(|it| !it.is_empty())
            .collect();
        assert_eq!(lines.iter().collect::<HashSet<_>>().len(), lines.len());
        assert_eq!(seven.iter().filter(|(_, body)| body.is_empty()).count(), 3);
        assert!(seven.iter().any(|(_, body)| !body.is_empty() && !body.ends_with(b"\n")));
        assert!(seven.iter().all(|(_, body)| body.len() < 8_000));
    }

    #[rstest]
    #[case(Format::Simple, "logs/2026-01-31-10-11-12-")]
    #[case(Format::DeliveryTime, "logs/111122223333/us-east-1/web/2026/01/31/2026-01-31-10-11-12-")]
    #[case(Format::EventTime, "logs/111122223333/us-east-1/web/2026/01/31/2026-01-31-00-00-00-")]
    fn keys_are_named_as_s3_names_them(#[case] format: Format, #[case] expected: &str) {
        let at = NaiveDate::from_ymd_opt(2026, 1, 31).unwrap().and_hms_opt(10, 11, 12).unwrap();
        let key = Generator::new(1).key(format, "logs/", "web", at);
        let unique = key.strip_prefix(expected).expect(&key);
        assert_eq!(unique.len(), 16);
        assert!(unique.chars().all(|digit| matches!(digit, '0'..='9' | 'A'..='F')), "{unique}");
    }

    /// Counts fields as a reader must: brackets and quotes hold spaces. The awkward values are left out.
    #[test]
    fn a_line_has_27_fields() {
        let at = NaiveDate::from_ymd_opt(2026, 1, 31).unwrap().and_hms_opt(0, 0, 38).unwrap();
        let mut generator = Generator::new(3);
        let plain = std::iter::repeat_with(|| generator.line("web", at))
            .find(|line| !line.contains("CloudFront") && !line.contains("quoted") && !line.contains("exact"))
            .unwrap();
        let mut fields = 0;
        let mut rest = plain.as_str();
        while !rest.is_empty() {
            let end = match rest.chars().next() {
                Some('[') => rest.find(']').unwrap() + 1,
                Some('"') => rest[1..].find('"').unwrap() + 2,
                _ => rest.find(' ').unwrap_or(rest.len()),
            };
            fields += 1;
            rest = rest[end..].strip_prefix(' ').unwrap_or("");
        }
        assert_eq!(fields, 27, "{plain}");
    }
}
