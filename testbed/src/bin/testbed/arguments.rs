//! The words after the command: flags with a value, switches, and the rest.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::Failure;

/// The words, told apart.
#[derive(Debug)]
pub(crate) struct Arguments {
    flags: BTreeMap<String, String>,
    rest: Vec<String>,
}

impl Arguments {
    /// Takes `--flag VALUE` of the names in `flags`, `--switch` of those in `switches`, and words without dashes.
    pub(crate) fn parse(
        mut words: impl Iterator<Item = String>,
        flags: &[&str],
        switches: &[&str],
    ) -> Result<Self, String> {
        let mut arguments = Self { flags: BTreeMap::new(), rest: Vec::new() };
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                arguments.rest.push(word);
                continue;
            };
            let value = match name {
                _ if flags.contains(&name) => words.next().ok_or_else(|| format!("{word} needs a value"))?,
                _ if switches.contains(&name) => String::new(),
                _ => return Err(format!("unknown argument {word}")),
            };
            arguments.flags.insert(name.to_owned(), value);
        }
        Ok(arguments)
    }

    /// Whether a switch or a flag was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.flags.contains_key(name)
    }

    /// A flag's value as it was given.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    /// A flag that must be there.
    pub(crate) fn needed(&self, name: &str) -> Result<&str, Failure> {
        self.text(name).ok_or_else(|| Failure::Usage(format!("--{name} is missing")))
    }

    /// A number, or the default.
    pub(crate) fn number<N: FromStr>(&self, name: &str, default: N) -> Result<N, Failure> {
        self.text(name).map_or(Ok(default), |text| {
            text.parse().map_err(|_| Failure::Usage(format!("--{name} {text}: not a number in range")))
        })
    }

    /// The words that belong to no flag.
    pub(crate) fn rest(&self) -> &[String] {
        &self.rest
    }

    /// The one word that belongs to no flag.
    pub(crate) fn only(&self, what: &str) -> Result<&str, Failure> {
        match &self.rest[..] {
            [word] => Ok(word),
            _ => Err(Failure::Usage(format!("one {what} is needed, not {}", self.rest.len()))),
        }
    }
}
