//! Reading claims: where one is, and what it must say. Types are never converted: a number is not a text.

use std::fmt;

use serde_json::{Map, Value};

use crate::auth::SpecError;
use crate::auth::pattern::Pattern;

/// The longest claim path, in bytes.
const MAX_PATH_BYTES: usize = 256;
/// The deepest claim path.
const MAX_PATH_SEGMENTS: usize = 16;

/// Where a claim is: a name (`groups`, `https://example.com/roles`), a dotted path (`realm_access.roles`) or a JSON
/// pointer (`/realm_access/roles`, RFC 6901). A top-level claim whose name is the whole text wins over the dotted path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClaimPath {
    text: Box<str>,
    segments: Box<[Box<str>]>,
}

impl ClaimPath {
    /// Parses a path of at most 256 bytes and 16 segments.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let refuse = |problem: &str| Err(SpecError::new("claim", format!("{text:?} {problem}")));
        if text.is_empty() || text.len() > MAX_PATH_BYTES {
            return refuse("must have 1 to 256 bytes");
        }
        let segments: Box<[Box<str>]> = match text.strip_prefix('/') {
            Some(pointer) => {
                pointer.split('/').map(|s| s.replace("~1", "/").replace("~0", "~").into()).collect()
            }
            None => text.split('.').map(Into::into).collect(),
        };
        if segments.len() > MAX_PATH_SEGMENTS {
            return refuse("is deeper than 16");
        }
        Ok(Self { text: text.into(), segments })
    }

    /// The path as configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value at this path.
    pub fn get<'v>(&self, claims: &'v Map<String, Value>) -> Option<&'v Value> {
        if let Some(value) = claims.get(&*self.text) {
            return Some(value);
        }
        let (first, rest) = self.segments.split_first()?;
        rest.iter().try_fold(claims.get(&**first)?, |value, segment| value.as_object()?.get(&**segment))
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// What a claim must say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimTest {
    /// A list that has this text as an element, or a text that has it as a space-separated word.
    Contains(String),
    /// Exactly this value, type included.
    Equals(Value),
    /// A text, or a list with a text, that this glob matches as a whole.
    Glob(String),
}

/// A claim and what it must say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimRule {
    /// Where the claim is.
    pub claim: ClaimPath,
    /// What it must say.
    pub test: ClaimTest,
}

/// A [`ClaimRule`] ready to be run.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    claim: ClaimPath,
    test: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Contains(Box<str>),
    Equals(Value),
    Glob(Pattern),
}

impl CompiledRule {
    pub(crate) fn compile(rule: &ClaimRule, field: &str) -> Result<Self, SpecError> {
        let test = match &rule.test {
            ClaimTest::Contains(text) if text.is_empty() || text.contains(' ') => {
                return Err(SpecError::new(field, "`contains` takes one word"));
            }
            ClaimTest::Contains(text) => Matcher::Contains(text.as_str().into()),
            ClaimTest::Equals(value) => Matcher::Equals(value.clone()),
            ClaimTest::Glob(text) => {
                Matcher::Glob(Pattern::parse(text).map_err(|problem| SpecError::new(field, problem))?)
            }
        };
        Ok(Self { claim: rule.claim.clone(), test })
    }

    pub(crate) fn matches(&self, claims: &Map<String, Value>) -> bool {
        let Some(value) = self.claim.get(claims) else { return false };
        match &self.test {
            Matcher::Contains(word) => match value {
                Value::String(text) => text.split(' ').any(|w| w == &**word),
                _ => texts(value).any(|t| t == &**word),
            },
            Matcher::Equals(expected) => value == expected,
            Matcher::Glob(pattern) => texts(value).any(|t| pattern.matches(t)),
        }
    }
}

/// The texts of a claim that is a text or a list; elements of other types are left out, never converted.
pub(crate) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let (one, many) = match value {
        Value::Array(items) => (None, items.as_slice()),
        other => (other.as_str(), &[][..]),
    };
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}

/// The words of a claim in the style of `scope`: one text with spaces, or a list.
pub(crate) fn words(value: &Value) -> impl Iterator<Item = &str> {
    texts(value).flat_map(|t| t.split(' ')).filter(|w| !w.is_empty())
}

/// A `NumericDate` (RFC 7519 §2): seconds, possibly with a fraction, which is dropped. Other types give `None`.
pub(crate) fn numeric_date(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64().or_else(|| n.as_f64().filter(|f| *f >= 0.0).map(|f| f as u64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn rule(path: &str, test: ClaimTest) -> CompiledRule {
        CompiledRule::compile(&ClaimRule { claim: ClaimPath::parse(path).unwrap(), test }, "rule").unwrap()
    }

    #[test]
    fn paths_are_names_dotted_or_pointers() {
        let claims =
            claims(json!({"a": {"b": 1, "c.d": 2}, "https://x.example/roles": 3, "a.b": 4, "e/f": 5}));
        let get = |path: &str| ClaimPath::parse(path).unwrap().get(&claims).and_then(Value::as_u64);
        assert_eq!(get("a.b"), Some(4), "a literal name wins");
        assert_eq!(get("/a/b"), Some(1));
        assert_eq!(get("/a/c.d"), Some(2));
        assert_eq!(get("https://x.example/roles"), Some(3));
        assert_eq!(get("/e~1f"), Some(5));
        assert_eq!(get("a.x"), None);
        assert_eq!(get("a.b.c"), None);
        assert!(ClaimPath::parse("").is_err());
        assert!(ClaimPath::parse(&"a.".repeat(20)).is_err());
    }

    #[test]
    fn tests_never_convert_types() {
        let claims = claims(
            json!({"n": 1, "o": {"admin": true}, "l": [["admin"], {"a": "admin"}, 1, "x"], "t": "true"}),
        );
        assert!(!rule("n", ClaimTest::Equals(json!("1"))).matches(&claims));
        assert!(rule("n", ClaimTest::Equals(json!(1))).matches(&claims));
        assert!(!rule("t", ClaimTest::Equals(json!(true))).matches(&claims));
        assert!(!rule("o", ClaimTest::Contains("admin".into())).matches(&claims));
        assert!(
            !rule("l", ClaimTest::Contains("admin".into())).matches(&claims),
            "nested lists do not count"
        );
        assert!(!rule("l", ClaimTest::Glob("*admin*".into())).matches(&claims));
        assert!(rule("l", ClaimTest::Glob("x*".into())).matches(&claims));
        assert!(!rule("missing", ClaimTest::Glob("*".into())).matches(&claims));
    }

    #[test]
    fn contains_means_a_word_not_a_substring() {
        let claims = claims(json!({"s": "notadmin admins", "r": "read admin"}));
        assert!(!rule("s", ClaimTest::Contains("admin".into())).matches(&claims));
        assert!(rule("r", ClaimTest::Contains("admin".into())).matches(&claims));
    }

    #[test]
    fn dates_are_numbers_that_are_not_negative() {
        assert_eq!(numeric_date(&json!(10)), Some(10));
        assert_eq!(numeric_date(&json!(10.9)), Some(10));
        assert_eq!(numeric_date(&json!(1e300)), Some(u64::MAX));
        for bad in [json!(-1), json!("10"), json!(null), json!([10]), json!(-0.5)] {
            assert_eq!(numeric_date(&bad), None, "{bad}");
        }
    }
}
