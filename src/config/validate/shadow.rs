//! Whether one matcher matches everything that another does.
//!
//! Sound, not complete: `true` is always right, `false` may only mean that it could not be told.

use crate::config::model::Matcher;

/// Whether every request that `narrow` matches is matched by `wide`.
pub(super) fn shadows(wide: &Matcher, narrow: &Matcher) -> bool {
    covers(&wide.roles, &narrow.roles, |w, n| w == n)
        && covers(&wide.principals, &narrow.principals, |w, n| pattern_covers(w, n))
        && covers(&wide.kinds, &narrow.kinds, |w, n| w == n)
        && covers(&wide.groups, &narrow.groups, |w, n| pattern_covers(w, n))
        && covers(&wide.scopes, &narrow.scopes, |w, n| pattern_covers(w, n))
        && covers(&wide.methods, &narrow.methods, |w, n| pattern_covers(w, n))
        && items_cover(wide, narrow)
        && covers(&wide.servers, &narrow.servers, |w, n| w == n)
        && covers(&wide.cidr, &narrow.cidr, |w, n| w.get().contains(&n.get()))
}

/// Whether what the narrow matcher says about tools, prompts and resources is covered. Lists of several kinds match
/// requests for any of them; no list at all matches every request.
fn items_cover(wide: &Matcher, narrow: &Matcher) -> bool {
    let kinds = [
        (&wide.tools, &narrow.tools),
        (&wide.prompts, &narrow.prompts),
        (&wide.resources, &narrow.resources),
    ];
    let everything = |of: fn(&(&'_ Vec<String>, &'_ Vec<String>)) -> bool| kinds.iter().all(of);
    if everything(|(wide, _)| wide.is_empty()) {
        return true;
    }
    if everything(|(_, narrow)| narrow.is_empty()) {
        return false;
    }
    kinds.iter().all(|(wide, narrow)| {
        narrow.is_empty() || (!wide.is_empty() && covers(wide, narrow, |w, n| pattern_covers(w, n)))
    })
}

/// Whether each entry of the narrow list is covered by one of the wide; an absent list is everything.
fn covers<T>(wide: &[T], narrow: &[T], entry: impl Fn(&T, &T) -> bool) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|n| wide.iter().any(|w| entry(w, n))))
}

/// Whether all that the second pattern matches is matched by the first. The second's `*` is taken as a letter that only
/// a `*` matches, which is enough for patterns that have nothing else.
fn pattern_covers(wide: &str, narrow: &str) -> bool {
    if wide == narrow {
        return true;
    }
    let special = |text: &str| text.contains(['?', '[', ']', '{', '}', '\\', '!']);
    if special(wide) || special(narrow) {
        return false;
    }
    let parts: Vec<&str> = wide.split('*').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return false };
    let Some(mut rest) = narrow.strip_prefix(first).and_then(|r| r.strip_suffix(last)) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        for (wide, narrow) in
            [("*", "a"), ("get_*", "get_x*"), ("*_x", "a*_x"), ("a*b*c", "abbc"), ("x", "x")]
        {
            assert!(pattern_covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in
            [("get_*", "g*"), ("a", "*"), ("a*a", "a"), ("get_*_a", "get_*"), ("[a]", "[ab]")]
        {
            assert!(!pattern_covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn kinds_of_items_are_alternatives() {
        let of = |tools: &[&str], prompts: &[&str]| Matcher {
            tools: tools.iter().map(|s| (*s).to_owned()).collect(),
            prompts: prompts.iter().map(|s| (*s).to_owned()).collect(),
            ..Matcher::default()
        };
        assert!(shadows(&of(&["*"], &["*"]), &of(&["a"], &[])));
        assert!(shadows(&of(&[], &[]), &of(&["a"], &["b"])));
        assert!(!shadows(&of(&["*"], &[]), &of(&["a"], &["b"])));
        assert!(!shadows(&of(&["*"], &[]), &of(&[], &[])));
    }

    /// The plain meaning of a pattern.
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                matches(rest, text) || (!text.is_empty() && matches(pattern, &text[1..]))
            }
            (Some((p, ps)), Some((t, ts))) => p == t && matches(ps, ts),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn covering_is_sound(wide in "[ab*]{0,6}", narrow in "[ab*]{0,6}", text in "[ab]{0,6}") {
            if pattern_covers(&wide, &narrow) && matches(narrow.as_bytes(), text.as_bytes()) {
                prop_assert!(matches(wide.as_bytes(), text.as_bytes()));
            }
        }
    }
}
