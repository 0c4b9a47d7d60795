//! Dropping entries from the lists of a server's answer.

use std::ops::Range;

use super::text::splice;
use super::{RewriteError, each_message};
use crate::mcp::scan::Shape;
use crate::mcp::scan::reader::{Checks, Fault, Reader, read};

/// Which list an answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// `prompts/list`: entries are known by `name`.
    Prompts,
    /// `resources/templates/list`: entries are known by `uriTemplate`.
    ResourceTemplates,
    /// `resources/list`: entries are known by `uri`.
    Resources,
    /// `tools/list`: entries are known by `name`.
    Tools,
}

impl ListKind {
    /// The kind of list that a method answers with.
    pub fn of_method(method: &str) -> Option<Self> {
        match method {
            "prompts/list" => Some(Self::Prompts),
            "resources/list" => Some(Self::Resources),
            "resources/templates/list" => Some(Self::ResourceTemplates),
            "tools/list" => Some(Self::Tools),
            _ => None,
        }
    }

    fn member(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::ResourceTemplates => "resourceTemplates",
            Self::Resources => "resources",
            Self::Tools => "tools",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Prompts | Self::Tools => "name",
            Self::ResourceTemplates => "uriTemplate",
            Self::Resources => "uri",
        }
    }
}

/// What becomes of `result.cacheScope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheScope {
    /// It stays as the server set it.
    Keep,
    /// It becomes `"private"` if it is there: a list cut for one caller must not be cached for another (2026-07-28,
    /// server/utilities/caching §Security). An absent one stays absent, which means the same.
    MakePrivate,
}

type Edits = Vec<(Range<usize>, &'static [u8])>;

/// Drops the entries for which `keep` is false from the list in a response, or in each response of a batch. `keep` gets
/// the entry's name, URI or URI template, escapes resolved. Entries without one are dropped: no rule can judge them.
///
/// `None` means that nothing changes. Messages without such a list, errors among them, do not change.
///
/// # Errors
///
/// [`RewriteError::Message`] if the message is not JSON, has a key twice on the way to the list, or has something else
/// than an array in the list's place. The caller must not forward it.
pub fn filter_list(
    message: &[u8],
    kind: ListKind,
    mut keep: impl FnMut(&str) -> bool,
    scope: CacheScope,
) -> Result<Option<Vec<u8>>, RewriteError> {
    let mut edits = Edits::new();
    read(message, Checks::WalkedKeys, |reader| {
        each_message(reader, |reader| response(reader, kind, &mut keep, scope, &mut edits))
    })?;
    if edits.is_empty() { Ok(None) } else { splice(message, &mut edits).map(Some) }
}

fn response(
    reader: &mut Reader<'_>,
    kind: ListKind,
    keep: &mut impl FnMut(&str) -> bool,
    scope: CacheScope,
    edits: &mut Edits,
) -> Result<(), Fault> {
    if reader.peek() != b'{' {
        return Err(reader.shape(Shape::NotAnObject));
    }
    reader.object(|reader, key| {
        if &*reader.decode(key) != "result" || reader.peek() != b'{' {
            return reader.skip();
        }
        reader.object(|reader, key| match &*reader.decode(key) {
            "cacheScope" if scope == CacheScope::MakePrivate => {
                let value = reader.raw()?;
                if value.as_str() != r#""private""# {
                    edits.push((value.range(), br#""private""#));
                }
                Ok(())
            }
            member if member == kind.member() => entries(reader, kind, keep, edits),
            _ => reader.skip(),
        })
    })
}

/// Drops entries together with one comma each: the one before it, or the one after it while none is kept yet.
fn entries(
    reader: &mut Reader<'_>,
    kind: ListKind,
    keep: &mut impl FnMut(&str) -> bool,
    edits: &mut Edits,
) -> Result<(), Fault> {
    if reader.peek() != b'[' {
        return Err(reader.shape(Shape::List));
    }
    let mut last_end = None;
    let mut last_kept = true;
    let mut any_kept = false;
    reader.array(|reader| {
        let start = reader.position();
        if !last_kept && !any_kept {
            // The entry before is dropped with all that lies between it and this one.
            if let Some((range, _)) = edits.last_mut() {
                range.end = start;
            }
        }
        last_kept = entry(reader, kind, keep)?;
        let end = reader.position();
        if !last_kept {
            let from = if any_kept { last_end.unwrap_or(start) } else { start };
            edits.push((from..end, b""));
        }
        any_kept |= last_kept;
        last_end = Some(end);
        Ok(())
    })
}

fn entry(
    reader: &mut Reader<'_>,
    kind: ListKind,
    keep: &mut impl FnMut(&str) -> bool,
) -> Result<bool, Fault> {
    if reader.peek() != b'{' {
        return reader.skip().map(|()| false);
    }
    let mut name = None;
    reader.object(|reader, key| {
        if &*reader.decode(key) != kind.key() {
            return reader.skip();
        }
        name = reader.string_value()?;
        Ok(())
    })?;
    Ok(name.is_some_and(|name| keep(&name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn tools(message: &str, keep: &[&str]) -> Option<String> {
        filter_list(message.as_bytes(), ListKind::Tools, |name| keep.contains(&name), CacheScope::MakePrivate)
            .unwrap()
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn drops_entries_and_leaves_all_other_bytes() {
        let message = r#"{"result" : {"x":1.50, "tools":[ {"name":"a"} , {"z":{"name":"b"},"name":"b"},{"name":"c" } ],"y":{}},"id":1}"#;
        for (keep, list) in [
            (&["b", "c"][..], r#"[ {"z":{"name":"b"},"name":"b"},{"name":"c" } ]"#),
            (&["a", "c"], r#"[ {"name":"a"},{"name":"c" } ]"#),
            (&["a", "b"], r#"[ {"name":"a"} , {"z":{"name":"b"},"name":"b"} ]"#),
            (&["c"], r#"[ {"name":"c" } ]"#),
            (&["b"], r#"[ {"z":{"name":"b"},"name":"b"} ]"#),
            (&["a"], r#"[ {"name":"a"} ]"#),
            (&[], "[  ]"),
        ] {
            let expected = format!(r#"{{"result" : {{"x":1.50, "tools":{list},"y":{{}}}},"id":1}}"#);
            assert_eq!(tools(message, keep).as_deref(), Some(&*expected), "{keep:?}");
        }
        assert_eq!(tools(message, &["a", "b", "c"]), None);
    }

    #[test]
    fn names_are_compared_unescaped_and_nameless_entries_are_dropped() {
        let message = r#"{"id":1,"result":{"tools":[{"n\u0061me":"\u0061"},{"title":"a"},7,{"name":7}]}}"#;
        assert_eq!(
            tools(message, &["a"]).unwrap(),
            r#"{"id":1,"result":{"tools":[{"n\u0061me":"\u0061"}]}}"#
        );
    }

    #[test]
    fn makes_an_existing_cache_scope_private_and_adds_none() {
        let public = r#"{"id":1,"result":{"cacheScope":"public","tools":[{"name":"a"}]}}"#;
        assert_eq!(tools(public, &["a"]).unwrap(), public.replace("public", "private"));
        assert_eq!(tools(&public.replace("public", "private"), &["a"]), None);
        assert_eq!(tools(r#"{"id":1,"result":{"tools":[]}}"#, &[]), None);
        let kept = filter_list(public.as_bytes(), ListKind::Tools, |_| true, CacheScope::Keep);
        assert_eq!(kept, Ok(None));
    }

    #[test]
    fn each_kind_has_its_list_and_key() {
        for (kind, method, list, key) in [
            (ListKind::Tools, "tools/list", "tools", "name"),
            (ListKind::Prompts, "prompts/list", "prompts", "name"),
            (ListKind::Resources, "resources/list", "resources", "uri"),
            (ListKind::ResourceTemplates, "resources/templates/list", "resourceTemplates", "uriTemplate"),
        ] {
            assert_eq!(ListKind::of_method(method), Some(kind));
            let message = format!(r#"{{"id":1,"result":{{"{list}":[{{"{key}":"x"}}]}}}}"#);
            let mut seen = Vec::new();
            let filtered = filter_list(
                message.as_bytes(),
                kind,
                |name| {
                    seen.push(name.to_owned());
                    false
                },
                CacheScope::Keep,
            );
            assert_eq!(seen, ["x"]);
            assert_eq!(
                filtered.unwrap().unwrap(),
                format!(r#"{{"id":1,"result":{{"{list}":[]}}}}"#).as_bytes()
            );
        }
    }

    #[test]
    fn lists_in_each_response_of_a_batch_are_filtered() {
        let batch = r#"[{"id":1,"result":{"tools":[{"name":"a"},{"name":"b"}]}},{"id":2,"result":{}},{"id":3,"result":{"tools":[{"name":"b"}]}}]"#;
        assert_eq!(
            tools(batch, &["a"]).unwrap(),
            r#"[{"id":1,"result":{"tools":[{"name":"a"}]}},{"id":2,"result":{}},{"id":3,"result":{"tools":[]}}]"#
        );
    }

    #[test]
    fn a_list_elsewhere_and_an_error_stay() {
        assert_eq!(
            tools(r#"{"id":1,"error":{"code":-1,"message":"","data":{"tools":[{"name":"b"}]}}}"#, &[]),
            None
        );
        assert_eq!(tools(r#"{"method":"x","params":{"tools":[{"name":"b"}]}}"#, &[]), None);
    }

    #[test]
    fn fails_closed_on_what_it_cannot_read() {
        for bad in [
            r#"{"id":1,"result":{"tools":[{"name":"a"}]"#,
            r#"{"id":1,"result":{"tools":{"name":"a"}}}"#,
            r#"{"id":1,"result":{"tools":[],"tools":[{"name":"a"}]}}"#,
            r#"{"id":1,"result":{"tools":[{"name":"a","name":"b"}]}}"#,
            r#"{"id":1,"result":{},"result":{"tools":[{"name":"b"}]}}"#,
            "[[]]",
            "null",
        ] {
            assert!(
                filter_list(bad.as_bytes(), ListKind::Tools, |name| name == "a", CacheScope::Keep).is_err(),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn equals_filtering_the_tree(
            names in proptest::collection::vec("[a-c\"\\\\é]{0,2}", 0..8),
            keep in proptest::collection::btree_set("[a-c\"\\\\é]{0,2}", 0..6),
            pretty in any::<bool>(),
        ) {
            let list = |names: Vec<&String>| -> Value {
                names.into_iter().map(|name| json!({"name": name, "inputSchema": {"type": "object"}})).collect()
            };
            let message = json!({"id": 1, "result": {"tools": list(names.iter().collect()), "ttlMs": 5}});
            let text = if pretty { serde_json::to_string_pretty(&message) } else { serde_json::to_string(&message) }.unwrap();
            let filtered = filter_list(text.as_bytes(), ListKind::Tools, |name| keep.contains(name), CacheScope::Keep).unwrap();
            let kept: Vec<&String> = names.iter().filter(|name| keep.contains(*name)).collect();
            prop_assert_eq!(filtered.is_none(), kept.len() == names.len());
            let filtered: Value = serde_json::from_slice(&filtered.unwrap_or(text.into_bytes())).unwrap();
            prop_assert_eq!(filtered, json!({"id": 1, "result": {"tools": list(kept), "ttlMs": 5}}));
        }
    }
}
