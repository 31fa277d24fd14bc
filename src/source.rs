//! What a pass knows of one log object: its key, its `ETag` and its size. The bytes never come here.

use std::fmt;

/// An entity tag as S3 shows it, without the quotes.
///
/// Objects written by one `PutObject` have an MD5 in hexadecimal digits (but for SSE-KMS and SSE-C), which is kept
/// in 16 bytes; everything else, multipart tags among it, is kept as it came.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(Form);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    Md5([u8; 16]),
    Opaque(Box<str>),
}

impl ETag {
    /// Takes an entity tag with or without its quotes, however many pairs: what is shown is read as the same tag again.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut bare = text;
        while let Some(inner) = bare.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
            bare = inner;
        }
        Self(md5_digits(bare).map_or_else(|| Form::Opaque(bare.into()), Form::Md5))
    }

    /// A tag that no object has: a condition on it fails.
    #[must_use]
    pub fn none() -> Self {
        Self(Form::Md5([0; 16]))
    }

    /// The tag in quotes, as conditions on the wire want it (RFC 9110, section 8.8.3).
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("\"{self}\"")
    }
}

fn md5_digits(text: &str) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = text.as_bytes().try_into().ok()?;
    let mut md5 = [0; 16];
    for (byte, pair) in md5.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = lower_hex(pair[0])? << 4 | lower_hex(pair[1])?;
    }
    Some(md5)
}

/// Only lower-case digits, so that a tag is always shown exactly as it came.
fn lower_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Md5(md5) => md5.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Form::Opaque(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ETag({self})")
    }
}

/// One log object of the source bucket, as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The whole key, prefix included.
    pub key: Box<str>,
    /// The tag that was listed: an object with another one is another object.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_etag_is_shown_exactly_as_it_came_without_its_quotes() {
        for tag in ["d41d8cd98f00b204e9800998ecf8427e", "D41D8CD98F00B204E9800998ECF8427E", "abc-12", "", "é"] {
            assert_eq!(ETag::new(tag).to_string(), tag);
            assert_eq!(ETag::new(&format!("\"{tag}\"")), ETag::new(tag));
            assert_eq!(ETag::new(tag).quoted(), format!("\"{tag}\""));
        }
    }
    proptest! {
        #[test]
        fn an_etag_of_any_text_survives_being_shown_and_read_again(text in "(\"|\\PC){0,6}|[0-9a-f]{31,33}|(?s:.)*") {
            let tag = ETag::new(&text);
            prop_assert_eq!(ETag::new(&tag.to_string()), tag.clone());
            prop_assert_eq!(ETag::new(&tag.quoted()), tag);
        }
    }
}
