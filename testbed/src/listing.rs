//! Pages of a listing: bytewise order, prefix, delimiter, start-after, continuation tokens.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::object::Object;

/// The most entries of a page, and the count where a request names none.
pub(crate) const MAX_KEYS: usize = 1_000;

/// What S3 leaves as it is in a key when `encoding-type=url` is asked for; a space becomes `+`.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b' ');

/// A key, prefix or delimiter as `encoding-type=url` shows it.
pub(crate) fn url_encoded(text: &str) -> String {
    utf8_percent_encode(text, KEPT).to_string().replace(' ', "+")
}

/// Where a page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Position {
    #[default]
    Start,
    /// After this key.
    AfterKey(String),
    /// After every key with this prefix.
    AfterPrefix(String),
}

impl Position {
    /// The continuation token: opaque to a client, safe in a URL.
    pub(crate) fn token(&self) -> String {
        let (kind, text) = match self {
            Self::Start => ("k", ""),
            Self::AfterKey(key) => ("k", key.as_str()),
            Self::AfterPrefix(prefix) => ("p", prefix.as_str()),
        };
        BASE64_URL_SAFE_NO_PAD.encode(format!("{kind}{text}"))
    }

    pub(crate) fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        match text.split_at_checked(1)? {
            ("k", key) => Some(Self::AfterKey(key.to_owned())),
            ("p", prefix) => Some(Self::AfterPrefix(prefix.to_owned())),
            _ => None,
        }
    }
}

/// What a page is asked for.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<String>,
    pub(crate) from: Position,
    pub(crate) max: usize,
}

/// A page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Arc<Object>)>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, if there is more.
    pub(crate) next: Option<Position>,
}

/// The smallest string that sorts after every string with this prefix; none where there is no such string.
fn after_all(prefix: &str) -> Option<String> {
    let mut rest = prefix;
    while let Some(last) = rest.chars().next_back() {
        rest = &rest[..rest.len() - last.len_utf8()];
        let next = match u32::from(last) + 1 {
            // The gap of the surrogates, which are no characters.
            0xd800 => char::from_u32(0xe000),
            code => char::from_u32(code),
        };
        if let Some(next) = next {
            return Some(format!("{rest}{next}"));
        }
    }
    None
}

pub(crate) fn page(objects: &BTreeMap<String, Arc<Object>>, query: &Query) -> Page {
    let mut page = Page::default();
    let mut start = Bound::Included(query.prefix.clone());
    match &query.from {
        Position::Start => {}
        Position::AfterKey(key) if *key < query.prefix => {}
        Position::AfterKey(key) => start = Bound::Excluded(key.clone()),
        Position::AfterPrefix(prefix) => match after_all(prefix) {
            Some(next) => start = Bound::Included(next.max(query.prefix.clone())),
            None => return page,
        },
    }
    let mut last = query.from.clone();
    'entries: loop {
        let range = objects.range((start.clone(), Bound::Unbounded));
        for (key, object) in range.take_while(|(key, _)| key.starts_with(&query.prefix)) {
            if page.objects.len() + page.prefixes.len() == query.max {
                // With a page of no entries there is nothing to continue.
                page.next = (query.max > 0).then_some(last);
                return page;
            }
            let delimiter = query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
            let rest = &key[query.prefix.len()..];
            if let Some((delimiter, at)) = delimiter.and_then(|it| Some((it, rest.find(it)?))) {
                let common = key[..query.prefix.len() + at + delimiter.len()].to_owned();
                page.prefixes.push(common.clone());
                let Some(next) = after_all(&common) else { return page };
                start = Bound::Included(next);
                last = Position::AfterPrefix(common);
                continue 'entries;
            }
            last = Position::AfterKey(key.clone());
            page.objects.push((key.clone(), Arc::clone(object)));
        }
        return page;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rope::Rope;

    fn walk(keys: &[&str], prefix: &str, delimiter: Option<&str>, max: usize) -> (Vec<String>, usize) {
        let object = Arc::new(Object::new(Rope::default(), String::new(), chrono::DateTime::UNIX_EPOCH));
        let objects = keys.iter().map(|key| ((*key).to_owned(), Arc::clone(&object))).collect();
        let mut seen = Vec::new();
        let mut pages = 0;
        let mut from = Position::Start;
        loop {
            let query = Query { prefix: prefix.to_owned(), delimiter: delimiter.map(str::to_owned), from, max };
            let page = page(&objects, &query);
            let mut entries: Vec<String> = page.objects.into_iter().map(|(key, _)| key).chain(page.prefixes).collect();
            entries.sort();
            seen.extend(entries);
            pages += 1;
            match page.next {
                Some(next) => from = Position::from_token(&next.token()).unwrap(),
                None => return (seen, pages),
            }
        }
    }

    #[test]
    fn pages_cover_every_entry_once_in_bytewise_order() {
        let keys = ["A", "Z", "a", "a/b/c", "a/b/d", "a/c", "a0", "b/\u{10ffff}/x", "é", "\u{ffff}"];
        let mut sorted = keys.map(str::to_owned).to_vec();
        sorted.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for max in 1..12 {
            assert_eq!(walk(&keys, "", None, max).0, sorted, "{max} a page");
            assert_eq!(walk(&keys, "a/", None, max).0, ["a/b/c", "a/b/d", "a/c"]);
            assert_eq!(walk(&keys, "", Some("/"), max).0, ["A", "Z", "a", "a/", "a0", "b/", "é", "\u{ffff}"]);
            assert_eq!(walk(&keys, "a/", Some("/"), max).0, ["a/b/", "a/c"]);
        }
        assert_eq!(walk(&keys, "", None, 10).1, 1, "a page that is just full is the last");
        assert_eq!(walk(&keys, "", None, 0).0.len(), 0);
    }

    #[test]
    fn url_encoding_is_that_of_s3() {
        assert_eq!(url_encoded("a b+c/ü%\n*~"), "a+b%2Bc/%C3%BC%25%0A*%7E");
    }
}
