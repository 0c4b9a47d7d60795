//! What was found in a document: where, what, what was expected, what would be right.
//!
//! A finding never shows a secret: values that came from `${…}` are not quoted, and literal secrets are blanked in the
//! source line that is shown with it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Most findings kept of one document; a file of another kind would otherwise yield one per line.
pub const MAX_DIAGNOSTICS: usize = 200;

/// Longest part of a source line shown, in characters.
const MAX_SHOWN: usize = 160;

/// A place in the source: 1-based line and column, length in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) length: u32,
}

impl At {
    /// The place of what was not read from text.
    pub(crate) const NOWHERE: Self = Self { line: 0, column: 0, length: 0 };
}

/// Whether a document with this finding can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not mean what it says.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the document can be used.
    pub severity: Severity,
    /// Stable identifier of the kind of finding, such as `unknown-key`.
    pub code: &'static str,
    /// The document's name, usually its path.
    pub file: Arc<str>,
    /// Line, from 1; 0 if the document was not read from text.
    pub line: u32,
    /// Column in characters, from 1; 0 if the document was not read from text.
    pub column: u32,
    /// Characters to underline.
    #[serde(skip)]
    pub length: u32,
    /// The key concerned, such as `servers[1].balance`. Empty for the whole document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would have been right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// A change that would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line as it stands in the document, secrets blanked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// Several lines, in the manner of rustc, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.severity, self.code, self.message)?;
        let gutter = if self.line > 0 { self.line.to_string().len() } else { 1 };
        if self.line > 0 {
            write!(f, "\n{:gutter$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
        } else {
            write!(f, "\n{:gutter$}--> {}", "", self.file)?;
        }
        if let Some(source) = &self.source {
            let (shown, caret, underlined) = crop(source, self.column as usize, self.length as usize);
            write!(f, "\n{:gutter$} |\n{} | {shown}", "", self.line)?;
            write!(f, "\n{:gutter$} | {:caret$}{}", "", "", "^".repeat(underlined))?;
            if !self.path.is_empty() {
                write!(f, " {}", self.path)?;
            }
        } else if !self.path.is_empty() {
            write!(f, "\n{:gutter$} = at: {}", "", self.path)?;
        }
        if self.expected.is_some() || self.hint.is_some() {
            write!(f, "\n{:gutter$} |", "")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n{:gutter$} = expected: {expected}", "")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{:gutter$} = help: {hint}", "")?;
        }
        Ok(())
    }
}

/// The part of a line around a column, how far to indent the carets and how many there are.
fn crop(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    let chars: Vec<char> = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    let column = (column.max(1) - 1).min(chars.len());
    let start = if column < MAX_SHOWN - 40 { 0 } else { column - 40 };
    let end = (start + MAX_SHOWN).min(chars.len());
    let mut shown: String = chars[start..end].iter().collect();
    let mut caret = column - start;
    if start > 0 {
        shown.insert(0, '…');
        caret += 1;
    }
    if end < chars.len() {
        shown.push('…');
    }
    let underlined = length.clamp(1, (end.max(column + 1)) - column);
    (shown.trim_end().to_owned(), caret, underlined)
}

/// All findings of one document, errors before warnings, each in the order of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    pub(crate) fn new(mut found: Vec<Diagnostic>) -> Self {
        found.sort_by_key(|d| (d.severity, d.line, d.column));
        found.dedup();
        found.truncate(MAX_DIAGNOSTICS);
        Self(found)
    }

    /// Puts other words in place of what is said, where `other` has some.
    pub fn reword(&mut self, other: impl Fn(&str) -> Option<String>) {
        for found in &mut self.0 {
            let texts = [
                Some(&mut found.path),
                Some(&mut found.message),
                found.expected.as_mut(),
                found.hint.as_mut(),
            ];
            for text in texts.into_iter().flatten() {
                if let Some(other) = other(text) {
                    *text = other;
                }
            }
        }
    }

    /// The findings.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.0.len() - self.errors()
    }

    /// Whether the document cannot be used.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// The findings as a JSON list.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or(serde_json::Value::Null)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Diagnostics {
    /// Every finding, separated by empty lines, and a last line that counts them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.0 {
            write!(f, "{diagnostic}\n\n")?;
        }
        let count = |n: usize, word: &str| match n {
            0 => None,
            1 => Some(format!("1 {word}")),
            n => Some(format!("{n} {word}s")),
        };
        match (count(self.errors(), "error"), count(self.warnings(), "warning")) {
            (None, None) => f.write_str("no findings"),
            (Some(one), None) | (None, Some(one)) => f.write_str(&one),
            (Some(errors), Some(warnings)) => write!(f, "{errors}, {warnings}"),
        }
    }
}

impl std::error::Error for Diagnostics {}
