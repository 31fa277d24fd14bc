//! Text that others chose, fit to be shown: keys, names, what a store says of an error.
//!
//! Whoever may put an object into the bucket chooses its key, and whoever stands between chooses the message. Shown as
//! it is, an escape sequence would rewrite the terminal, a line end would forge a log line, and a sign that reverses
//! the direction of writing would make one key look like another.

use std::fmt::{self, Write};

/// Characters that are shown at most: a key of 1,024 plain ones is whole.
const LONGEST: usize = 1100;

/// The text on one line, of bounded length, in characters that a terminal only prints. What is not such is shown as in
/// a Rust literal, and so is the backslash, so that no two texts look alike.
#[must_use]
pub fn shown(text: &str) -> Shown<'_> {
    Shown(text)
}

/// See [`shown`].
#[derive(Clone, Copy, Debug)]
pub struct Shown<'t>(&'t str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = LONGEST;
        for c in self.0.chars() {
            let plain = matches!(c, '"' | '\'');
            let length = if plain { 1 } else { c.escape_debug().len() };
            let Some(left) = room.checked_sub(length) else { return f.write_char('…') };
            room = left;
            if plain { f.write_char(c)? } else { c.escape_debug().fmt(f)? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("logs/käse \"a'b\" 漢/2026", "logs/käse \"a'b\" 漢/2026")]
    #[case("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}")]
    #[case("a\nb\rc\td\0", "a\\nb\\rc\\td\\0")]
    #[case("\u{9b}2J\u{85}\u{7f}", "\\u{9b}2J\\u{85}\\u{7f}")]
    #[case("\u{202e}gpj\u{2066}\u{2028}\u{feff}\u{200b}", "\\u{202e}gpj\\u{2066}\\u{2028}\\u{feff}\\u{200b}")]
    #[case("\\n", "\\\\n")]
    fn what_a_terminal_would_obey_is_shown_as_in_a_literal(#[case] text: &str, #[case] told: &str) {
        assert_eq!(shown(text).to_string(), told);
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(shown(&"x".repeat(1024)).to_string().len(), 1024);
        let cut = shown(&"\u{202e}".repeat(1 << 20)).to_string();
        assert!(cut.ends_with('…') && cut.chars().count() <= LONGEST + 1);
    }

    proptest! {
        #[test]
        fn two_texts_that_are_not_cut_never_look_alike(a in "\\PC{0,9}|[\\\\nu{}0-9a\n\u{1b}]{0,9}", b in "[\\\\nu{}0-9a\n\u{1b}]{0,9}") {
            prop_assert_eq!(shown(&a).to_string() == shown(&b).to_string(), a == b);
        }
    }
}
