//! The beginning of a body, without the values of members that are not to be recorded.
//!
//! Bodies are cut, and so may end anywhere: this goes through the text once, from the front, and keeps what it understands.
//! Where it does not (the text is no JSON, or a value that may hide something is cut in the middle) it stops: what comes
//! after is not kept. A text that is itself JSON, as tools like to answer, is looked into as well.

use serde::de::IgnoredAny;

/// What stands in place of a value.
const REDACTED: &str = "\"[redacted]\"";
/// How deep texts may be JSON that has texts that are JSON; deeper ones are left out.
const MAX_LAYERS: usize = 4;

/// The first bytes of `body`, at most `max`, with the values of `names` replaced; and how many bytes of `body` they stand
/// for. Names are compared without regard to the case of ASCII letters.
pub fn redact<N: AsRef<str>>(body: &[u8], names: &[N], max: usize) -> (Vec<u8>, usize) {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // Valid up to there.
        Err(error) => std::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default(),
    };
    let mut pass =
        Pass { text, at: 0, out: String::with_capacity(text.len().min(max)), max, names, layer: 0 };
    pass.run();
    (pass.out.into_bytes(), pass.at)
}

/// Without the character at the end that was cut in two.
pub fn whole_characters(body: &[u8]) -> &[u8] {
    match std::str::from_utf8(body) {
        // Nothing but the last character is incomplete.
        Err(error) if error.error_len().is_none() => &body[..error.valid_up_to()],
        _ => body,
    }
}

struct Pass<'t, N> {
    text: &'t str,
    /// Up to where `out` stands for `text`.
    at: usize,
    out: String,
    max: usize,
    names: &'t [N],
    layer: usize,
}

impl<N: AsRef<str>> Pass<'_, N> {
    /// Returns whether all of the text is in `out`.
    fn run(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let start = skip_space(bytes, 0);
        if !matches!(bytes.get(start), Some(b'{' | b'[')) {
            return start == bytes.len() && self.copy(start);
        }
        // Whether each open bracket is a map's.
        let mut open: Vec<bool> = Vec::new();
        // Whether the next text is a member's name.
        let mut name_next = false;
        while self.at < bytes.len() {
            let at = self.at;
            match bytes[at] {
                b' ' | b'\t' | b'\n' | b'\r' | b':' => {}
                bracket @ (b'{' | b'[') => {
                    open.push(bracket == b'{');
                    name_next = bracket == b'{';
                }
                b'}' | b']' => {
                    open.pop();
                    name_next = false;
                }
                b',' => name_next = open.last() == Some(&true),
                b'"' => {
                    let Some(end) = string_end(bytes, at) else { return self.unfinished(name_next) };
                    let is_name = std::mem::replace(&mut name_next, false);
                    if !is_name {
                        if !self.string(end) {
                            return false;
                        }
                        continue;
                    }
                    let hidden = self.hides(&self.text[at..end]);
                    if !self.copy(end) {
                        return false;
                    }
                    if hidden && !self.hide() {
                        return false;
                    }
                    continue;
                }
                b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {}
                _ => return false,
            }
            if !self.copy(at + 1) {
                return false;
            }
        }
        true
    }

    /// Takes over the text up to `end`, as far as there is room.
    fn copy(&mut self, end: usize) -> bool {
        let piece = &self.text[self.at..end];
        let room = super::clip(piece, self.max - self.out.len());
        self.out.push_str(room);
        self.at += room.len();
        room.len() == piece.len()
    }

    /// Puts something in place of the text up to `end`.
    fn put(&mut self, text: &str, end: usize) -> bool {
        if self.out.len() + text.len() > self.max {
            return false;
        }
        self.out.push_str(text);
        self.at = end;
        true
    }

    /// A name has been copied whose value must not be.
    fn hide(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let colon = skip_space(bytes, self.at);
        if bytes.get(colon) != Some(&b':') {
            // The end; or no JSON, and then nobody knows what belongs to the name.
            return false;
        }
        let value = skip_space(bytes, colon + 1);
        if !self.copy(value) {
            return false;
        }
        let Some(end) = value_end(bytes, value) else {
            let here = self.at;
            self.put(REDACTED, here);
            return false;
        };
        self.put(REDACTED, end)
    }

    /// A text that is a value, from here up to `end`.
    fn string(&mut self, end: usize) -> bool {
        let raw = &self.text[self.at..end];
        let Some(inner) = json_inside(raw) else { return self.copy(end) };
        if serde_json::from_str::<IgnoredAny>(&inner).is_err() {
            // Only looks like JSON. What may be a member that is to be hidden takes the whole text with it.
            let folded = inner.to_ascii_lowercase();
            let named = |name: &N| folded.contains(&format!("\"{}\"", name.as_ref().to_ascii_lowercase()));
            return if self.names.iter().any(named) { self.put(REDACTED, end) } else { self.copy(end) };
        }
        if self.layer == MAX_LAYERS {
            return self.put(REDACTED, end);
        }
        let mut pass = Pass {
            text: &inner,
            at: 0,
            out: String::new(),
            max: usize::MAX,
            names: self.names,
            layer: self.layer + 1,
        };
        if !pass.run() {
            return self.put(REDACTED, end);
        }
        if pass.out == inner {
            return self.copy(end);
        }
        let Ok(changed) = serde_json::to_string(&pass.out) else { return false };
        self.put(&changed, end)
    }

    /// The last text is cut. A name without a value tells nothing, and neither does prose; JSON may.
    fn unfinished(&mut self, is_name: bool) -> bool {
        let inner = self.text[self.at + 1..].trim_start();
        if is_name || !(inner.starts_with(['{', '[', '\\'])) {
            self.copy(self.text.len());
        }
        false
    }

    fn hides(&self, quoted: &str) -> bool {
        let equal = |name: &str| self.names.iter().any(|other| other.as_ref().eq_ignore_ascii_case(name));
        if quoted.contains('\\') {
            // One that cannot be read is not taken for harmless.
            return serde_json::from_str::<String>(quoted).map_or(true, |name| equal(&name));
        }
        equal(&quoted[1..quoted.len() - 1])
    }
}

/// The content of a quoted text, if it begins as JSON does.
fn json_inside(quoted: &str) -> Option<String> {
    let begins = |text: &str| text.trim_start().starts_with(['{', '[']);
    let raw = &quoted[1..quoted.len() - 1];
    if !begins(raw) && !raw.trim_start().starts_with('\\') {
        return None;
    }
    serde_json::from_str::<String>(quoted).ok().filter(|text| begins(text))
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// Behind the quotation mark that ends the text which begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Behind the value that begins at `at`; `None` if it does not end, or is none.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => {
            let (mut at, mut depth) = (at, 0usize);
            loop {
                match bytes.get(at)? {
                    b'"' => {
                        at = string_end(bytes, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        // A number that ends where the body was cut may go on.
        _ => {
            let plain = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
            let length = bytes[at..].iter().take_while(plain).count();
            (length > 0 && at + length < bytes.len()).then_some(at + length)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const NAMES: [&str; 2] = ["pin", "card"];

    fn text(body: &str, max: usize) -> (String, usize) {
        let (out, at) = redact(body.as_bytes(), &NAMES, max);
        (String::from_utf8(out).unwrap(), at)
    }

    #[test]
    fn values_of_names_are_replaced_at_any_depth_and_nothing_else() {
        for (body, wanted) in [
            (r#"{"a":1,"pin":2}"#, r#"{"a":1,"pin":"[redacted]"}"#),
            (r#"[{"x":{"PIN":"s3cret"}},"pin"]"#, r#"[{"x":{"PIN":"[redacted]"}},"pin"]"#),
            (r#"{"card" : {"a":["]}",{"b":"\""}]} , "k":"pin"}"#, r#"{"card" : "[redacted]" , "k":"pin"}"#),
            (r#"{"p\u0069n":true,"pins":1}"#, r#"{"p\u0069n":"[redacted]","pins":1}"#),
            (r#"{"pin":null}"#, r#"{"pin":"[redacted]"}"#),
            (r#"{"text":"{\"pin\":12,\"b\":\"x\"}"}"#, r#"{"text":"{\"pin\":\"[redacted]\",\"b\":\"x\"}"}"#),
            (r#"{"text":"[see the \"pin\": 12"}"#, r#"{"text":"[redacted]"}"#),
            (r#"{"text":"[link] to {x}"}"#, r#"{"text":"[link] to {x}"}"#),
            ("", ""),
        ] {
            assert_eq!(text(body, 1000), (wanted.to_owned(), body.len()), "{body}");
        }
    }

    #[test]
    fn what_is_no_json_is_not_kept() {
        for body in ["pin=1234", "oops {\"pin\":1}", "\u{1}", "<pin>1</pin>"] {
            assert_eq!(text(body, 1000), (String::new(), 0), "{body}");
        }
        let (kept, at) = text(r#"{"a":1, pin=1234}"#, 1000);
        assert!(!kept.contains("1234") && at < 16, "{kept}");
        assert_eq!(text(r#"{"pin"=1234}"#, 1000).0, r#"{"pin""#);
    }

    #[test]
    fn a_cut_body_never_shows_the_beginning_of_a_value() {
        let body =
            r#"{"a":"xüy","pin":"s3cret","b":{"card":{"n":"s3cret"}},"t":"{\"pin\":\"s3cret\"}","z":5}"#;
        for end in 0..=body.len() {
            let Some(cut) = body.get(..end) else { continue };
            for max in [usize::MAX, 40, 7] {
                let (kept, at) = text(cut, max.min(10_000));
                assert!(!kept.contains("s3") && at <= end && kept.len() <= max, "{end} {max} {kept}");
            }
        }
        assert_eq!(text(r#"{"pin":12"#, 100), (r#"{"pin":"[redacted]""#.to_owned(), 7), "it may go on");
        assert_eq!(whole_characters(&"aü".as_bytes()[..2]), b"a");
        assert_eq!(whole_characters(b"\xff\xff"), b"\xff\xff");
        assert_eq!(whole_characters("ü".as_bytes()), "ü".as_bytes());
    }

    fn hide(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(hide),
            Value::Object(map) => {
                for (name, value) in map {
                    if NAMES.contains(&name.as_str()) { *value = json!("[redacted]") } else { hide(value) }
                }
            }
            _ => {}
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z\"\\\\ü\n,:]{0,6}".prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("pin|card|[a-c\"]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_same_as_by_the_tree(value in values().prop_filter("a map or list", |v| v.is_array() || v.is_object())) {
            let body = value.to_string();
            let mut wanted = value;
            hide(&mut wanted);
            let (kept, at) = text(&body, 1 << 20);
            prop_assert_eq!(at, body.len());
            prop_assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), wanted);
        }

        #[test]
        fn any_bytes_are_gone_through_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..200), max in 0usize..100) {
            let (kept, at) = redact(&body, &NAMES, max);
            prop_assert!(kept.len() <= max && at <= body.len());
        }
    }
}
