//! Functions in the text of a source file: which one a line is in.
//!
//! For what debug info leaves without a name, where the source is at hand. Reads braces,
//! `fn` and `impl`, and passes over comments and literals; what macros make is not there.

/// A function in a source file, from its brace to the closing one, as line and column
/// from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Function {
    from: (u32, u32),
    to: (u32, u32),
    name: String,
}

/// The functions of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline(Vec<Function>);

impl Outline {
    pub(crate) fn of(source: &str) -> Self {
        Reader::new(source).read()
    }

    /// The innermost function around a place.
    pub(crate) fn around(&self, line: u32, column: Option<u32>) -> Option<&str> {
        let at = (line, column.unwrap_or(u32::MAX));
        let holds = |function: &&Function| function.from <= at && at <= function.to;
        let innermost = self
            .0
            .iter()
            .filter(holds)
            .max_by_key(|function| function.from)?;
        Some(&innermost.name)
    }
}

/// What a brace opens.
enum Scope {
    Function { from: (u32, u32), name: String },
    Impl(String),
    Other,
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    at: (u32, u32),
}

impl<'a> Reader<'a> {
    fn new(source: &'a str) -> Self {
        Reader {
            rest: source.chars().peekable(),
            at: (1, 0),
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.at = if c == '\n' {
            (self.at.0 + 1, 0)
        } else {
            (self.at.0, self.at.1 + 1)
        };
        Some(c)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn read(mut self) -> Outline {
        let mut found = Vec::new();
        let mut scopes: Vec<Scope> = Vec::new();
        // What the next brace opens: the name after `fn`, the words after `impl`.
        let (mut function, mut of_impl) = (None, None::<String>);
        // Of brackets since `fn`: `[u8; 2]` ends no declaration.
        let (mut after_fn, mut depth) = (false, 0_i32);
        while let Some(c) = self.next() {
            match c {
                '/' if self.peek() == Some('/') => self.skip_line(),
                '/' if self.peek() == Some('*') => self.skip_comment(),
                '"' => self.skip_string(0),
                '\'' => self.skip_quote(),
                '{' => scopes.push(match (function.take(), of_impl.take()) {
                    (Some(name), _) => Scope::Function {
                        from: self.at,
                        name,
                    },
                    (None, Some(words)) => Scope::Impl(type_of(&words)),
                    (None, None) => Scope::Other,
                }),
                '}' => {
                    if let Some(Scope::Function { from, name }) = scopes.pop() {
                        let of = scopes.iter().rev().find_map(|scope| match scope {
                            Scope::Impl(of) if !of.is_empty() => Some(of),
                            _ => None,
                        });
                        let name = of.map_or(name.clone(), |of| format!("{of}::{name}"));
                        found.push(Function {
                            from,
                            to: self.at,
                            name,
                        });
                    }
                }
                ';' if depth <= 0 => (function, of_impl) = (None, None),
                c if c.is_alphabetic() || c == '_' => {
                    let word = self.word(c);
                    if matches!(word.as_str(), "r" | "br" | "cr")
                        && matches!(self.peek(), Some('"' | '#'))
                    {
                        self.skip_raw();
                    } else if std::mem::take(&mut after_fn) {
                        (function, depth) = (Some(word), 0);
                    } else if word == "fn" && function.is_none() {
                        after_fn = true;
                    } else if word == "impl" && function.is_none() {
                        of_impl = Some(String::new());
                    } else if let Some(words) = &mut of_impl {
                        words.push(' ');
                        words.push_str(&word);
                    }
                }
                c if c.is_whitespace() => {}
                c => {
                    // `fn(u8) -> u8` is a type.
                    after_fn = false;
                    depth += i32::from("([".contains(c)) - i32::from(")]".contains(c));
                    if let Some(words) = &mut of_impl {
                        words.push(c);
                    }
                }
            }
        }
        Outline(found)
    }

    fn word(&mut self, first: char) -> String {
        let mut word = String::from(first);
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            word.push(c);
            self.next();
        }
        word
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
    }

    fn skip_comment(&mut self) {
        let mut depth = 0_u32;
        let mut before = '/';
        while let Some(c) = self.next() {
            match (before, c) {
                ('/', '*') => (depth, before) = (depth + 1, ' '),
                ('*', '/') if depth == 1 => return,
                ('*', '/') => (depth, before) = (depth - 1, ' '),
                _ => before = c,
            }
        }
    }

    /// Up to the quote that is followed by so many `#`; without any, `\` escapes.
    fn skip_string(&mut self, hashes: usize) {
        while let Some(c) = self.next() {
            match c {
                '\\' if hashes == 0 => {
                    self.next();
                }
                '"' => {
                    let mut seen = 0;
                    while seen < hashes && self.peek() == Some('#') {
                        self.next();
                        seen += 1;
                    }
                    if seen == hashes {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    fn skip_raw(&mut self) {
        let mut hashes = 0;
        while self.peek() == Some('#') {
            self.next();
            hashes += 1;
        }
        // `r#name` is a name.
        if self.peek() != Some('"') {
            return;
        }
        self.next();
        if hashes > 0 {
            return self.skip_string(hashes);
        }
        while self.next().is_some_and(|c| c != '"') {}
    }

    /// A character, or a lifetime, which has no second quote.
    fn skip_quote(&mut self) {
        match self.next() {
            Some('\\') => {
                self.next();
                while self.next().is_some_and(|c| c != '\'') {}
            }
            Some(c) if self.peek() == Some('\'') => {
                let _ = c;
                self.next();
            }
            _ => {}
        }
    }
}

/// `<T> Save for store::Store<T> where ..` is `Store`.
fn type_of(words: &str) -> String {
    let words = words.split(" where").next().unwrap_or_default();
    let mut depth = 0_i32;
    let mut plain = String::new();
    for c in words.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            c if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    let of = plain.rsplit(" for ").next().unwrap_or_default();
    let name = of.rsplit("::").next().unwrap_or_default().trim();
    name.trim_start_matches(|c: char| !c.is_alphanumeric())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r##"
//! fn not_this() {
impl<T: Ord> Store<T> {
    /* fn nor /* this */ { */
    async fn zip(&self, of: fn(u8) -> u8) -> [u8; 2] {
        let text = "fn no() { \" }"; let raw = r#"} " fn"#; let c = '{'; let e = '\'';
        let inner = async move {
            work(&'static_lifetime()); // line 8
        };
        inner.await
    } // line 11
}
impl Save for crate::store::Disk where Disk: Send {
    async fn save(&self) { fn nested() { one(); } two(); } // line 14
}
trait Declared { fn without_body(&self); fn with(&self) { 1 } }
fn r#type() { 'a: loop { break 'a; } }
async fn last() -> impl Future<Output = ()> {
    go() // line 19
}
"##;

    #[test]
    fn the_function_around_a_place() {
        let outline = Outline::of(SOURCE);
        for (line, column, name) in [
            (6, Some(9), Some("Store::zip")),
            (8, Some(13), Some("Store::zip")),
            (11, Some(5), Some("Store::zip")),
            (14, Some(42), Some("Disk::nested")),
            (14, Some(52), Some("Disk::save")),
            (16, Some(60), Some("with")),
            (19, None, Some("last")),
            (3, Some(1), None),
            (99, None, None),
        ] {
            assert_eq!(outline.around(line, column), name, "{line} {column:?}");
        }
    }

    #[test]
    fn any_text_is_read_to_its_end() {
        for source in [
            "",
            "fn",
            "fn f(",
            "fn f() { \"",
            "'",
            "r#",
            "r##\"",
            "/*",
            "}}}",
            "impl {",
        ] {
            let _ = Outline::of(source).around(1, None);
        }
        for end in 0..SOURCE.len() {
            let _ = SOURCE.get(..end).map(Outline::of);
        }
    }
}
