//! A tree as YAML, in the one way there is: block style, keys in a fixed order, texts quoted unless every reader takes
//! them for text, nothing that was not written.
//!
//! The output parses to the same tree again, and writing that gives the same bytes: stored documents are compared, hashed
//! and shown as they are. A property test holds it to that.

use std::fmt::Write;

use super::tree::{Entry, Node, Value};

/// Keys that come first in a map, in this order; the others follow by the alphabet.
const FIRST: [&str; 14] = [
    "version",
    "name",
    "source",
    "hosts",
    "path_prefix",
    "grants",
    "document",
    "tenants",
    "servers",
    "routes",
    "limits",
    "policies",
    "identity",
    "issuer",
];

/// Words that some reader of YAML takes for something else than text.
const NOT_TEXT: [&str; 12] =
    ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan", "merge"];

/// The text of a document whose root is a map.
pub(crate) fn write(root: &Node) -> String {
    let mut out = String::new();
    match root.entries() {
        [] => out.push_str("{}\n"),
        entries => map(&mut out, entries, 0),
    }
    out
}

fn map(out: &mut String, entries: &[Entry], indent: usize) {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    let rank = |entry: &Entry| FIRST.iter().position(|key| *key == entry.key).unwrap_or(FIRST.len());
    sorted.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key)));
    for (i, entry) in sorted.into_iter().enumerate() {
        if i > 0 {
            pad(out, indent);
        }
        text(out, &entry.key);
        out.push(':');
        value(out, &entry.node, indent, true);
    }
}

/// What follows a key (`nested`) or the dash of an item; ends with a line break.
fn value(out: &mut String, node: &Node, indent: usize, after_key: bool) {
    match &node.value {
        Value::List(items) if !items.is_empty() => {
            for item in items {
                out.push('\n');
                pad(out, indent + 2);
                out.push('-');
                value(out, item, indent + 2, false);
                // The item has ended its line; the next one begins it again.
                out.pop();
            }
            out.push('\n');
        }
        Value::Map(entries) if !entries.is_empty() => {
            if after_key {
                out.push('\n');
                pad(out, indent + 2);
            } else {
                out.push(' ');
            }
            map(out, entries, indent + 2);
        }
        other => {
            out.push(' ');
            scalar(out, other);
            out.push('\n');
        }
    }
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Float(value) => write!(out, "{value:?}").expect("writing to a string does not fail"),
        Value::Int(value) => write!(out, "{value}").expect("writing to a string does not fail"),
        Value::List(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
        Value::Broken | Value::Null => out.push_str("null"),
        Value::Text(value) => text(out, value),
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn text(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Whatever breaks lines, is invisible or may not stand in a document.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
                || u32::from(c) & 0xfffe == 0xfffe =>
            {
                write!(out, "\\U{:08x}", u32::from(c)).expect("writing to a string does not fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether every reader takes a text without quotes for that text. Stricter than YAML, so that nobody has to know it.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./+$@{}%,=~*()^".contains(c);
    let bytes = text.as_bytes();
    let colons = bytes
        .iter()
        .enumerate()
        .all(|(i, b)| *b != b':' || bytes.get(i + 1).is_some_and(|next| !next.is_ascii_whitespace()));
    let starts = first.is_ascii_alphabetic() || first == '/' || first == '$' || is_measure(text);
    let word = text.trim_start_matches('.').to_ascii_lowercase();
    starts
        && colons
        && text.chars().all(|c| safe(c) || c == ':')
        && !NOT_TEXT.contains(&word.as_str())
        && text.len() <= 1024
}

/// `10s`, `200/m`, `64KiB`, `20%`: digits and then a unit that no number has.
fn is_measure(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.len() - unit.len();
    (1..=15).contains(&digits)
        && matches!(
            unit,
            "ms" | "s" | "m" | "h" | "d" | "/s" | "/m" | "/h" | "/d" | "B" | "KiB" | "MiB" | "GiB" | "%"
        )
}
