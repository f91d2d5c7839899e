//! Text of others, made harmless: names, functions, paths, reasons, messages.
//!
//! A task's name comes from a request, a function's from whatever binary is loaded, a
//! report from another machine. A line break in such a text would forge a line of a
//! log, an escape sequence would drive the terminal, and a change of the writing
//! direction would show what is not there. Every form of output therefore writes such
//! text by [`part`], [`sentence`] or [`lines`]; HTML and Markdown escape what these
//! give once more. Data keeps the text as it came.

use std::borrow::Cow;
use std::fmt;

/// How many bytes of a name are kept, with the mark that it was cut.
pub(crate) const MAX_NAME: usize = 128;
/// How many characters one text of others takes of a line.
const MAX_PART: usize = 256;
/// How many characters a sentence takes that has such texts in it.
const MAX_SENTENCE: usize = 2_000;
/// How many lines a text of several lines takes.
const MAX_LINES: usize = 100;
/// Stands for what was cut.
const CUT: char = '\u{2026}';

/// Whether a character has no picture of its own, or changes that of others.
///
/// Controls, U+2028 and U+2029, private use, noncharacters, annotations, the blank
/// pattern U+2800, and all that Unicode lets a renderer leave out
/// (`Default_Ignorable_Code_Point` of DerivedCoreProperties.txt, Unicode 16): these are
/// the bidirectional controls, zero-width characters, fillers, variation selectors, tags.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..)
        || matches!(c, '\u{fdd0}'..='\u{fdef}')
        || c as u32 & 0xfffe == 0xfffe
}

/// Writes a text in one line, each hidden character by its number: `\u{1b}`, `\n`.
///
/// A backslash stays as it is, so that paths stay readable, and so that a text that was
/// written so can be written again without a change.
pub(crate) fn write_visible(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        if is_hidden(c) {
            write!(out, "{}", c.escape_default())?;
        } else {
            out.write_char(c)?;
        }
    }
    Ok(())
}

/// One text of others, as a part of a line.
pub(crate) const fn part(text: &str) -> Visible<'_> {
    Visible::within(text, MAX_PART)
}

/// A sentence that has texts of others in it.
pub(crate) const fn sentence(text: &str) -> Visible<'_> {
    Visible::within(text, MAX_SENTENCE)
}

/// Prose, of which line breaks are spaces.
pub(crate) fn prose(text: &str) -> String {
    sentence(&text.replace(['\n', '\r'], " ")).to_string()
}

/// A text in one line, without hidden characters, and no longer than a bound: of what
/// is longer, beginning and end. Its length does not depend on that of the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visible<'a> {
    text: &'a str,
    most: usize,
}

impl<'a> Visible<'a> {
    /// At most so many characters.
    pub(crate) const fn within(text: &'a str, most: usize) -> Self {
        Visible { text, most }
    }
}

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Visible { text, most } = *self;
        if fitting(text.chars(), most) == text.len() {
            return write_visible(f, text);
        }
        // The end of a function's path and that of a file say more than their beginnings.
        let room = most.saturating_sub(1);
        let head = fitting(text.chars(), room / 3);
        let tail = fitting(text.chars().rev(), room - room / 3);
        write_visible(f, text.get(..head).unwrap_or_default())?;
        fmt::Write::write_char(f, CUT)?;
        write_visible(f, text.get(text.len() - tail..).unwrap_or_default())
    }
}

/// How many bytes of these characters there is room for.
fn fitting(chars: impl Iterator<Item = char>, mut room: usize) -> usize {
    let mut bytes = 0;
    for c in chars {
        let width = if is_hidden(c) {
            c.escape_default().len()
        } else {
            1
        };
        match room.checked_sub(width) {
            Some(left) => room = left,
            None => break,
        }
        bytes += c.len_utf8();
    }
    bytes
}

/// A text of several lines, like code or a panic's message: its line breaks stay.
///
/// Each line but the first begins with `indent`, so that none of them can pass for a
/// line of ours.
pub(crate) const fn lines<'a>(text: &'a str, indent: &'a str) -> Lines<'a> {
    Lines { text, indent }
}

/// See [`lines`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    indent: &'a str,
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.text.lines();
        for (number, line) in lines.by_ref().take(MAX_LINES).enumerate() {
            if number > 0 {
                write!(f, "\n{}", self.indent)?;
            }
            write!(f, "{}", sentence(line))?;
        }
        match lines.next() {
            Some(_) => write!(f, "\n{}{CUT}", self.indent),
            None => Ok(()),
        }
    }
}

/// A name as it is kept: what is longer than [`MAX_NAME`] bytes ends in `…`.
pub(crate) fn cut_name(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME {
        return Cow::Borrowed(name);
    }
    let mut end = MAX_NAME - CUT.len_utf8();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let kept = name.get(..end).unwrap_or_default();
    Cow::Owned(format!("{kept}{CUT}"))
}

/// JSON with each hidden character as `\uXXXX`, which says the same.
pub(crate) fn json(text: String) -> String {
    // All of JSON but what is in its strings is ASCII, and in these a serializer has
    // escaped the controls below U+0020: what else there is of them lays out the lines.
    let hides = |c: char| c > '\u{1f}' && is_hidden(c);
    if !text.contains(hides) {
        return text;
    }
    let mut json = String::with_capacity(text.len());
    for c in text.chars() {
        if hides(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                json.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            json.push(c);
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hidden_characters_are_shown_by_number() {
        for (text, shown) in [
            ("plain, größer 日本語 🦀", "plain, größer 日本語 🦀"),
            ("C:\\temp `a` | <b>", "C:\\temp `a` | <b>"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\u{0}"),
            (
                "\x1b[31m\x7f\u{9b}31m\u{85}",
                "\\u{1b}[31m\\u{7f}\\u{9b}31m\\u{85}",
            ),
            (
                "\u{202e}gnp\u{202c}\u{2066}\u{2069}",
                "\\u{202e}gnp\\u{202c}\\u{2066}\\u{2069}",
            ),
            ("\u{200e}\u{200f}\u{61c}", "\\u{200e}\\u{200f}\\u{61c}"),
            (
                "\u{200b}\u{200d}\u{2060}\u{2064}\u{feff}",
                "\\u{200b}\\u{200d}\\u{2060}\\u{2064}\\u{feff}",
            ),
            (
                "\u{ad}\u{180e}\u{115f}\u{1160}\u{3164}\u{ffa0}",
                "\\u{ad}\\u{180e}\\u{115f}\\u{1160}\\u{3164}\\u{ffa0}",
            ),
            (
                "\u{fe0f}\u{e0101}\u{e0041}",
                "\\u{fe0f}\\u{e0101}\\u{e0041}",
            ),
            ("\u{2028}\u{2029}\u{fff9}", "\\u{2028}\\u{2029}\\u{fff9}"),
            (
                "\u{e000}\u{fdd0}\u{ffff}\u{1fffe}\u{10ffff}",
                "\\u{e000}\\u{fdd0}\\u{ffff}\\u{1fffe}\\u{10ffff}",
            ),
        ] {
            assert_eq!(part(text).to_string(), shown);
        }
    }

    #[test]
    fn the_length_of_a_text_does_not_make_a_line_long() {
        let long = "x\u{202e}".repeat(5 << 20);
        assert_eq!(long.len(), 20 << 20);
        for shown in [part(&long).to_string(), lines(&long, "").to_string()] {
            assert!(shown.len() < 2_100 && shown.contains(CUT), "{shown}");
        }
        let many = lines(&"line\n".repeat(1_000), "    ").to_string();
        assert_eq!(many.lines().count(), MAX_LINES + 1);
        assert!(many.lines().skip(1).all(|line| line.starts_with("    ")));
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut_name("upload"), "upload");
        let fits = "n".repeat(MAX_NAME);
        assert_eq!(cut_name(&fits), fits);
        for c in ["n", "ö", "日", "🦀"] {
            let cut = cut_name(&c.repeat(MAX_NAME + 1)).into_owned();
            assert!(cut.len() <= MAX_NAME && cut.len() > MAX_NAME - 4, "{cut}");
            assert!(cut.ends_with(CUT) && cut.starts_with(c));
        }
    }

    proptest! {
        #[test]
        fn what_was_written_can_be_written_again(text in ".{0,300}", most in 0_usize..300) {
            let shown = Visible::within(&text, most).to_string();
            prop_assert!(!shown.contains(is_hidden));
            prop_assert!(shown.chars().count() <= most.max(1), "{}", shown);
            if most > 0 {
                prop_assert_eq!(Visible::within(&shown, most).to_string(), shown.clone());
            }
        }

        #[test]
        fn json_says_the_same(text in any::<String>()) {
            let written = json(serde_json::to_string_pretty(&[&text]).unwrap());
            prop_assert!(!written.contains(|c| c != '\n' && is_hidden(c)));
            let [read]: [String; 1] = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
