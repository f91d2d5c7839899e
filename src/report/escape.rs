//! Text of a user's program in HTML and Markdown, once it is harmless in a line.

use std::fmt;

use crate::escape::{lines, prose, sentence};

/// In HTML, in text and in quoted attributes.
pub(crate) struct Html<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Html<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_html(f, &sentence(&self.0.to_string()).to_string())
    }
}

/// Code in HTML, within `<pre>`: its lines stay.
pub(crate) struct HtmlCode<'a>(pub(crate) &'a str);

impl fmt::Display for HtmlCode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_html(f, &lines(self.0, "").to_string())
    }
}

fn write_html(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '&' => f.write_str("&amp;")?,
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '"' => f.write_str("&quot;")?,
            '\'' => f.write_str("&#39;")?,
            c => write!(f, "{c}")?,
        }
    }
    Ok(())
}

/// In a line of Markdown, as text.
pub(crate) struct Markdown<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Markdown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in sentence(&self.0.to_string()).to_string().chars() {
            match c {
                // HTML within Markdown, and what links and mentions begin with.
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '@' => f.write_str("&#64;")?,
                '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '+' | '!'
                | '|' | '~' => write!(f, "\\{c}")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// In Markdown, as code within a line, also of a table.
///
/// Not a code span: within a table its bars could not be escaped everywhere.
pub(crate) struct Code<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Code<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<code>{}</code>", Markdown(&self.0))
    }
}

/// Prose with code between backticks, as advice is written: in Markdown.
pub(crate) struct MarkdownProse<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for MarkdownProse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (code, part) in parts(&prose(&self.0.to_string())) {
            match code {
                true => write!(f, "{}", Code(part))?,
                false => write!(f, "{}", Markdown(part))?,
            }
        }
        Ok(())
    }
}

/// Prose with code between backticks, as advice is written: in HTML.
pub(crate) struct HtmlProse<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for HtmlProse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (code, part) in parts(&prose(&self.0.to_string())) {
            match code {
                true => write!(f, "<code>{}</code>", Html(part))?,
                false => write!(f, "{}", Html(part))?,
            }
        }
        Ok(())
    }
}

/// Each part, and whether it is code: every other one is.
fn parts(prose: &str) -> impl Iterator<Item = (bool, &str)> {
    prose
        .split('`')
        .enumerate()
        .map(|(number, part)| (number % 2 == 1, part))
}

/// A block of code in Markdown, fenced by more backticks than are in it.
pub(crate) struct Block<'a>(pub(crate) &'a str, pub(crate) &'a str);

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Block(language, code) = self;
        let code = lines(code.trim_end_matches('\n'), "").to_string();
        let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat((longest + 1).max(3));
        write!(f, "{fence}{language}\n{code}\n{fence}")
    }
}
