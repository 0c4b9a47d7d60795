//! How large bodies may be: those with documents may have what documents may have, all others what the listener allows.
//!
//! Large ones are read only after the gate said yes, and few at a time: what they may take of the memory is bounded by
//! [`AT_ONCE`] × [`QUOTED`].

use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;

use crate::config::MAX_DOCUMENT;

/// A body that is a document.
const PLAIN: usize = MAX_DOCUMENT;
/// A body in which documents are texts of JSON, where each of their characters may take two, and what is beside them.
pub(super) const QUOTED: usize = 2 * MAX_DOCUMENT + (64 << 10);
/// Bodies beyond the listener's own bound that are worked on at once.
pub(super) const AT_ONCE: usize = 8;

/// The bound of an operation, if it is not the listener's.
pub(super) fn of(operation: &str) -> Option<usize> {
    match operation {
        "compare_document"
        | "compare_platform_document"
        | "replace_document"
        | "replace_platform_document" => Some(PLAIN),
        "apply_documents" | "ask_proof" | "ask_whatif" | "start_canary" => Some(QUOTED),
        _ => None,
    }
}

/// What a request declares; none if it says nothing or nonsense.
pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::permission::Operation;

    #[test]
    fn whoever_may_send_more_is_an_operation() {
        let large = [
            "apply_documents",
            "ask_proof",
            "ask_whatif",
            "compare_document",
            "compare_platform_document",
            "replace_document",
            "replace_platform_document",
            "start_canary",
        ];
        for id in large {
            assert!(Operation::find(id).is_some() && of(id).is_some_and(|max| max >= MAX_DOCUMENT), "{id}");
        }
        let others = crate::control::permission::OPERATIONS.iter().filter(|o| !large.contains(&o.id));
        assert!(others.clone().count() > 50 && others.map(|o| of(o.id)).all(|max| max.is_none()));
    }
}
