//! Who is let in: tokens of service accounts, as a kubelet projects them into pods.
//!
//! Claims are checked, signatures are not: a cluster's own API server vouches for what it projects.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde_json::Value;

/// The audience of IRSA's tokens.
pub(crate) const WEB_IDENTITY: &str = "sts.amazonaws.com";
/// The audience of EKS Pod Identity's.
pub(crate) const POD_IDENTITY: &str = "pods.eks.amazonaws.com";

/// Remembers the tokens that were shown.
#[derive(Debug, Default)]
pub(crate) struct Door {
    /// `system:serviceaccount:NAMESPACE:`, which subjects must begin with.
    subjects: String,
    seen: Vec<String>,
}

/// A token that is good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) subject: String,
    /// The number of the token in order of first sight, from 1.
    pub(crate) number: usize,
    /// Whether it was never shown before.
    pub(crate) first: bool,
}

impl Door {
    pub(crate) fn new(namespace: &str) -> Self {
        Self { subjects: format!("system:serviceaccount:{namespace}:"), seen: Vec::new() }
    }

    /// Lets a token in, or says why not.
    pub(crate) fn show(&mut self, token: &str, audience: &str, now: DateTime<Utc>) -> Result<Shown, String> {
        let claims = claims(token).ok_or("it is no JSON Web Token")?;
        let audiences = match &claims["aud"] {
            Value::Array(audiences) => audiences.clone(),
            one => vec![one.clone()],
        };
        if !audiences.iter().any(|it| it == audience) {
            return Err(format!("its audience is {audiences:?}, not {audience}"));
        }
        let subject = claims["sub"].as_str().unwrap_or_default();
        if !subject.starts_with(&self.subjects) {
            return Err(format!("its subject {subject:?} does not begin with {}", self.subjects));
        }
        if claims["exp"].as_i64().is_none_or(|expiry| expiry <= now.timestamp()) {
            return Err(String::from("it is expired"));
        }
        let known = self.seen.iter().position(|seen| seen == token);
        if known.is_none() {
            self.seen.push(token.to_owned());
        }
        let number = known.map_or(self.seen.len(), |at| at + 1);
        Ok(Shown { subject: subject.to_owned(), number, first: known.is_none() })
    }
}

fn claims(token: &str) -> Option<Value> {
    let mut parts = token.trim().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    fn good(expiry: i64) -> String {
        token(&format!(r#"{{"aud":["sts.amazonaws.com"],"sub":"system:serviceaccount:logs:acme","exp":{expiry}}}"#))
    }

    #[rstest]
    #[case::no_token("", "no JSON Web Token")]
    #[case::another_audience(
        &token(r#"{"aud":["pods.eks.amazonaws.com"],"sub":"system:serviceaccount:logs:acme","exp":11}"#),
        "its audience"
    )]
    #[case::another_namespace(
        &token(r#"{"aud":"sts.amazonaws.com","sub":"system:serviceaccount:logs-two:acme","exp":11}"#),
        "its subject"
    )]
    #[case::expired(&good(10), "expired")]
    fn is_not_let_in(#[case] token: &str, #[case] why: &str) {
        let now = DateTime::from_timestamp(10, 0).expect("a time");
        let refused = Door::new("logs").show(token, WEB_IDENTITY, now).expect_err("refused");
        assert!(refused.contains(why), "{refused}");
    }

    #[test]
    fn a_rotated_token_is_told_from_one_that_was_shown_before() {
        let now = DateTime::from_timestamp(10, 0).expect("a time");
        let mut door = Door::new("logs");
        let mut number = |expiry| {
            let shown = door.show(&good(expiry), WEB_IDENTITY, now).expect("let in");
            assert_eq!(shown.subject, "system:serviceaccount:logs:acme");
            (shown.number, shown.first)
        };
        assert_eq!([number(11), number(11), number(12), number(11)], [(1, true), (1, false), (2, true), (1, false)]);
    }
}
