//! Rewrites never panic, give JSON, and do what the same change on a tree does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollgate::mcp::rewrite::{CacheScope, ListKind, filter_list, map_result_ids, peek, response_id};

fuzz_target!(|message: &[u8]| {
    let tree = serde_json::from_slice::<Value>(message).ok();
    if peek(message).is_ok() {
        // Deep nesting and numbers beyond `f64` are the two things that serde_json refuses and the peek need not.
        let Some(tree) = &tree else { return };
        if let Some(id) = response_id(message) {
            assert_eq!(serde_json::from_str::<Value>(id).ok().as_ref(), tree.get("id"));
        }
    }
    for kind in [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::ResourceTemplates] {
        let keep = |name: &str| name.len() % 2 == 0;
        if let Ok(Some(filtered)) = filter_list(message, kind, keep, CacheScope::MakePrivate) {
            let mut seen_dropped = false;
            let again = filter_list(
                &filtered,
                kind,
                |name| {
                    seen_dropped |= !keep(name);
                    keep(name)
                },
                CacheScope::MakePrivate,
            );
            assert_eq!(again, Ok(None), "filtering twice changes more");
            assert!(!seen_dropped);
            assert!(tree.is_none() || serde_json::from_slice::<Value>(&filtered).is_ok());
        }
    }
    let mut mapped_ids = 0;
    let mapped = map_result_ids(message, |_, value| {
        mapped_ids += 1;
        Some(format!("<{value}>"))
    });
    if let Ok(Some(mapped)) = mapped {
        let mut found = 0;
        let same = map_result_ids(&mapped, |_, value| {
            found += 1;
            assert!(value.starts_with('<') && value.ends_with('>'));
            None
        });
        assert_eq!(same, Ok(None));
        assert_eq!(found, mapped_ids);
        assert!(tree.is_none() || serde_json::from_slice::<Value>(&mapped).is_ok());
    }
});
