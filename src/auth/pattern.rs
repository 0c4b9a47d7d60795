//! Glob patterns over names: `*`, `?`, `[…]` and `{a,b}`; without any of these, equality.

use globset::{GlobBuilder, GlobMatcher};

/// The longest pattern, in bytes.
pub(crate) const MAX_PATTERN_BYTES: usize = 256;

#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Any,
    Exact(Box<str>),
    Glob(GlobMatcher),
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(format!("a pattern has 1 to {MAX_PATTERN_BYTES} bytes"));
        }
        if text == "*" {
            return Ok(Pattern::Any);
        }
        if !text.contains(['*', '?', '[', ']', '{', '}', '\\']) {
            return Ok(Pattern::Exact(text.into()));
        }
        GlobBuilder::new(text)
            // Names are not paths: `*` also matches `/`, and `\` always escapes.
            .literal_separator(false)
            .backslash_escape(true)
            .build()
            .map(|glob| Pattern::Glob(glob.compile_matcher()))
            .map_err(|e| e.kind().to_string())
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Exact(text) => &**text == name,
            Pattern::Glob(glob) => glob.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let matches = |pattern: &str, name: &str| Pattern::parse(pattern).unwrap().matches(name);
        assert!(matches("get_*", "get_weather") && !matches("get_*", "forget_me"));
        assert!(matches("tools/call", "tools/call") && !matches("tools/call", "tools/calls"));
        assert!(matches("tools/*", "tools/call") && matches("*", "a/b"));
        assert!(matches("{a,b}?", "a1") && !matches("{a,b}?", "c1"));
        assert!(matches(r"a\*", "a*") && !matches(r"a\*", "ab"));
        assert!(!matches("Get_*", "get_weather"), "case matters");
    }

    #[test]
    fn broken_patterns_are_errors() {
        assert!(Pattern::parse("").is_err());
        assert!(Pattern::parse("[a").is_err());
        assert!(Pattern::parse(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_err());
    }
}
