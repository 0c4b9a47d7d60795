//! Patterns for names: what a rule, a cost or a filter says about tools, prompts, resources and methods.
//!
//! `*` stands for any run of characters (also none, also `/`), `?` for exactly one character, and a backslash takes
//! the meaning from the character after it. Everything else is compared byte for byte: case matters and nothing is
//! normalised, because the server behind the gateway compares names the same way. Classes and alternatives
//! (`[ab]`, `{a,b}`) are refused instead of being taken literally: a deny rule that silently matches nothing is worse
//! than an error. A pattern always matches the whole name.
//!
//! Exact patterns, `prefix*` and `*suffix` cost one comparison. Nothing here allocates while matching.

use std::fmt;

/// A pattern longer than this is refused; it bounds the work of one match.
pub const MAX_PATTERN_BYTES: usize = 256;

/// A compiled pattern. Ordered by its text, for collections.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Glob {
    source: Box<str>,
    shape: Shape,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Shape {
    Any,
    Exact(Box<str>),
    General(Box<[Token]>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Token {
    Char(char),
    Many,
    One,
}

/// One element of a pattern; see [`Glob::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This character.
    Char(char),
    /// Any run of characters.
    Many,
    /// Any one character.
    One,
}

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It would match nothing.
    #[error("an empty pattern matches nothing; write `*` for everything")]
    Empty,
    /// Characters that mean something in other pattern languages.
    #[error(
        "`{0}` is not supported in a pattern: list the alternatives, or write `\\{0}` for the character itself"
    )]
    Reserved(char),
    /// Longer than [`MAX_PATTERN_BYTES`].
    #[error("the pattern is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// A backslash at the end.
    #[error("a backslash at the end of a pattern escapes nothing")]
    TrailingEscape,
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// See [`GlobError`].
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(GlobError::TooLong);
        }
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' if tokens.last() == Some(&Token::Many) => {}
                '*' => tokens.push(Token::Many),
                '?' => tokens.push(Token::One),
                '\\' => tokens.push(Token::Char(chars.next().ok_or(GlobError::TrailingEscape)?)),
                '[' | ']' | '{' | '}' => return Err(GlobError::Reserved(c)),
                other => tokens.push(Token::Char(other)),
            }
        }
        Ok(Self { source: pattern.into(), shape: Shape::of(tokens) })
    }

    /// The pattern that matches exactly this name, whatever characters it has.
    pub fn exact(name: &str) -> Self {
        Self { source: name.into(), shape: Shape::Exact(name.into()) }
    }

    /// The pattern that matches whatever begins with `text`, whatever characters that has.
    pub fn prefix(text: &str) -> Self {
        let tokens = text.chars().map(Token::Char).chain([Token::Many]).collect();
        Self { source: format!("{text}*").into(), shape: Shape::of(tokens) }
    }

    /// Everything an RFC 6570 URI template can expand to, seen generously: each expression is taken as `*`.
    /// An unclosed brace swallows the rest.
    pub fn from_template(template: &str) -> Self {
        let mut tokens = Vec::new();
        let mut inside = false;
        for c in template.chars() {
            match (inside, c) {
                (false, '{') => {
                    inside = true;
                    if tokens.last() != Some(&Token::Many) {
                        tokens.push(Token::Many);
                    }
                }
                (true, '}') => inside = false,
                (true, _) => {}
                (false, c) => tokens.push(Token::Char(c)),
            }
        }
        Self { source: template.into(), shape: Shape::of(tokens) }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        match &self.shape {
            Shape::Any => true,
            Shape::Exact(text) => **text == *name,
            Shape::General(tokens) => match_tokens(tokens, name),
            Shape::Prefix(text) => name.starts_with(&**text),
            Shape::Suffix(text) => name.ends_with(&**text),
        }
    }

    /// Whether the pattern matches every name.
    pub fn is_any(&self) -> bool {
        matches!(self.shape, Shape::Any)
    }

    /// The one name it matches, if it has no wildcard.
    pub fn as_exact(&self) -> Option<&str> {
        match &self.shape {
            Shape::Exact(text) => Some(text),
            _ => None,
        }
    }

    /// Whether every name that `other` matches is matched by this one. May say no where the truth is yes (for
    /// patterns such as `*?` against `?*`), never the other way.
    pub fn covers(&self, other: &Glob) -> bool {
        let (wide, narrow) = (self.shape.tokens(), other.shape.tokens());
        // One row of the table `covered[i][j]`: does wide[i..] cover narrow[j..]? Filled from the ends.
        let mut next = vec![false; narrow.len() + 1];
        next[narrow.len()] = true;
        for token in wide.iter().rev() {
            let mut row = vec![false; narrow.len() + 1];
            for j in (0..=narrow.len()).rev() {
                row[j] = match token {
                    Token::Many => next[j] || (j < narrow.len() && row[j + 1]),
                    Token::One => j < narrow.len() && narrow[j] != Token::Many && next[j + 1],
                    Token::Char(_) => j < narrow.len() && narrow[j] == *token && next[j + 1],
                };
            }
            next = row;
        }
        next[0]
    }

    /// What it is made of, for algorithms that need more than the two comparisons here.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let step = |token| match token {
            Token::Char(c) => Step::Char(c),
            Token::Many => Step::Many,
            Token::One => Step::One,
        };
        self.shape.tokens().into_iter().map(step).collect()
    }

    /// Whether some name is matched by both.
    pub fn intersects(&self, other: &Glob) -> bool {
        let (left, right) = (self.shape.tokens(), other.shape.tokens());
        let mut next = vec![false; right.len() + 1];
        next[right.len()] = true;
        for j in (0..right.len()).rev() {
            next[j] = right[j] == Token::Many && next[j + 1];
        }
        for token in left.iter().rev() {
            let mut row = vec![false; right.len() + 1];
            for j in (0..=right.len()).rev() {
                let both = |i: Token| match (*token, i) {
                    (Token::Char(a), Token::Char(b)) => a == b,
                    _ => true,
                };
                row[j] = match (token, right.get(j)) {
                    (Token::Many, Some(_)) => next[j] || row[j + 1],
                    (Token::Many, None) => next[j],
                    (_, Some(Token::Many)) => row[j + 1] || next[j],
                    (_, Some(other)) => both(*other) && next[j + 1],
                    (_, None) => false,
                };
            }
            next = row;
        }
        next[0]
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

impl Shape {
    fn of(tokens: Vec<Token>) -> Self {
        let literal = |tokens: &[Token]| {
            tokens
                .iter()
                .map(|t| match t {
                    Token::Char(c) => Some(*c),
                    _ => None,
                })
                .collect::<Option<String>>()
                .map(String::into_boxed_str)
        };
        match tokens.as_slice() {
            [Token::Many] => return Shape::Any,
            [rest @ .., Token::Many] => {
                if let Some(text) = literal(rest) {
                    return Shape::Prefix(text);
                }
            }
            [Token::Many, rest @ ..] => {
                if let Some(text) = literal(rest) {
                    return Shape::Suffix(text);
                }
            }
            all => {
                if let Some(text) = literal(all) {
                    return Shape::Exact(text);
                }
            }
        }
        Shape::General(tokens.into_boxed_slice())
    }

    fn tokens(&self) -> Vec<Token> {
        let chars = |text: &str| text.chars().map(Token::Char).collect::<Vec<_>>();
        match self {
            Shape::Any => vec![Token::Many],
            Shape::Exact(text) => chars(text),
            Shape::General(tokens) => tokens.to_vec(),
            Shape::Prefix(text) => {
                let mut tokens = chars(text);
                tokens.push(Token::Many);
                tokens
            }
            Shape::Suffix(text) => {
                let mut tokens = vec![Token::Many];
                tokens.extend(chars(text));
                tokens
            }
        }
    }
}

/// Greedy matching that only ever goes back to the last `*`: at most `tokens × name` steps, no recursion.
fn match_tokens(tokens: &[Token], name: &str) -> bool {
    let (mut token, mut rest) = (0, name.chars());
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = rest.clone();
        let step = match (tokens.get(token), ahead.next()) {
            (Some(Token::Many), _) => {
                retry = Some((token + 1, rest.clone()));
                token += 1;
                continue;
            }
            (None, None) => return true,
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Char(want)), Some(got)) => *want == got,
            _ => false,
        };
        if step {
            token += 1;
            rest = ahead;
            continue;
        }
        let Some((after, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        token = *after;
        rest = from.clone();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(pattern: &str) -> Glob {
        Glob::new(pattern).unwrap()
    }

    #[test]
    fn wildcards_match_runs_and_single_characters() {
        for (pattern, name, want) in [
            ("get_*", "get_", true),
            ("get_*", "get_x", true),
            ("get_*", "aget_x", false),
            ("get_*", "Get_x", false),
            ("*_file", "delete_file", true),
            ("*_file", "delete_files", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*a*", "bab", true),
            ("file:///*/x", "file:///a/b/x", true),
            ("a", "a\u{301}", false),
        ] {
            assert_eq!(glob(pattern).matches(name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn metacharacters_of_other_languages_are_refused_unless_escaped() {
        for pattern in ["a[bc]", "{a,b}", "a]", "x}"] {
            assert!(matches!(Glob::new(pattern), Err(GlobError::Reserved(_))), "{pattern}");
        }
        assert!(glob(r"a\[bc\]").matches("a[bc]"));
        assert!(glob(r"\*").matches("*") && !glob(r"\*").matches("x"));
        assert!(glob(r"\?").matches("?") && !glob(r"\?").matches("x"));
        assert_eq!(Glob::new(""), Err(GlobError::Empty));
        assert_eq!(Glob::new("a\\"), Err(GlobError::TrailingEscape));
        assert_eq!(Glob::new(&"a".repeat(257)), Err(GlobError::TooLong));
    }

    #[test]
    fn a_name_with_metacharacters_is_only_text() {
        assert!(!glob("delete_file").matches("delete_*"));
        assert!(Glob::exact("a*").matches("a*") && !Glob::exact("a*").matches("ab"));
        assert!(Glob::exact("a*").covers(&glob(r"a\*")));
    }

    #[test]
    fn many_stars_do_not_explode() {
        let started = std::time::Instant::now();
        assert!(!glob(&"*a".repeat(128)).matches(&format!("{}b", "a".repeat(8192))));
        assert!(started.elapsed().as_secs() < 2);
    }

    #[test]
    fn covers_is_inclusion() {
        for (wide, narrow, want) in [
            ("*", "a?b*", true),
            ("get_*", "get_user", true),
            ("get_*", "get_user_*", true),
            ("get_user", "get_*", false),
            ("a?c", "abc", true),
            ("a?c", "a*c", false),
            ("*_x", "a_*_x", true),
            ("a*b", "a*b*b", true),
            ("a*b*b", "a*b", false),
        ] {
            assert_eq!(glob(wide).covers(&glob(narrow)), want, "{wide} {narrow}");
        }
    }

    #[test]
    fn templates_match_by_what_they_can_become() {
        let template = Glob::from_template("file:///{path}/x{?q}");
        assert!(glob("file:///srv/*").intersects(&template));
        assert!(!glob("http://*").intersects(&template));
        assert!(glob("file:///*").covers(&template));
        assert!(!glob("file:///etc/*").covers(&template));
        assert!(glob("a*").covers(&Glob::from_template("a{unclosed")));
    }

    /// The obvious recursive matcher, to compare with.
    fn naive(tokens: &[Token], name: &[char]) -> bool {
        match tokens {
            [] => name.is_empty(),
            [Token::Many, rest @ ..] => (0..=name.len()).any(|i| naive(rest, &name[i..])),
            [Token::One, rest @ ..] => !name.is_empty() && naive(rest, &name[1..]),
            [Token::Char(c), rest @ ..] => name.first() == Some(c) && naive(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_matcher(pattern in "[ab*?é]{1,8}", name in "[abé]{0,8}") {
            let glob = glob(&pattern);
            let chars: Vec<char> = name.chars().collect();
            prop_assert_eq!(glob.matches(&name), naive(&glob.shape.tokens(), &chars));
        }

        #[test]
        fn cover_and_intersection_agree_with_matching(a in "[ab*?]{1,6}", b in "[ab*?]{1,6}", name in "[ab]{0,6}") {
            let (a, b) = (glob(&a), glob(&b));
            if a.covers(&b) && b.matches(&name) {
                prop_assert!(a.matches(&name));
            }
            if a.matches(&name) && b.matches(&name) {
                prop_assert!(a.intersects(&b) && b.intersects(&a));
            }
            prop_assert_eq!(a.intersects(&b), b.intersects(&a));
        }
    }
}
