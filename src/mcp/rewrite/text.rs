//! Building JSON text from parts.

use std::ops::Range;

use super::RewriteError;

/// Replaces byte ranges of `body`. Edits may come in any order and are sorted in place; two empty ranges at the same
/// place are inserted in the order given.
///
/// # Errors
///
/// [`RewriteError::Edit`] if a range is reversed, overlaps another one or leaves the body.
pub fn splice<T: AsRef<[u8]>>(body: &[u8], edits: &mut [(Range<usize>, T)]) -> Result<Vec<u8>, RewriteError> {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let added: usize = edits.iter().map(|(_, with)| with.as_ref().len()).sum();
    let mut out = Vec::with_capacity(body.len() + added);
    let mut from = 0;
    for (range, with) in edits.iter() {
        let outside = || RewriteError::Edit { start: range.start, end: range.end, length: body.len() };
        let kept = body.get(from..range.start).ok_or_else(outside)?;
        if range.end < range.start || range.end > body.len() {
            return Err(outside());
        }
        out.extend_from_slice(kept);
        out.extend_from_slice(with.as_ref());
        from = range.end;
    }
    out.extend_from_slice(&body[from..]);
    Ok(out)
}

/// A JSON string literal with the given value.
pub fn quote(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len() + 2);
    push_quoted(&mut out, value);
    String::from_utf8(out).expect("a JSON literal of a str is UTF-8")
}

/// Appends a JSON string literal. Only what RFC 8259 §7 requires is escaped.
pub fn push_quoted(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(out, value).expect("a str serialises and a Vec takes all writes");
}

/// Builds a response: `{"jsonrpc":"2.0","id":…,"result":…}`. Both parts are JSON texts that the caller has validated.
pub fn with_id(result: &[u8], id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + id.len() + result.len());
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#","result":"#);
    out.extend_from_slice(result);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splice_replaces_inserts_and_deletes_in_any_order() {
        let body = b"0123456789";
        let mut edits = [(8..9, &b""[..]), (2..4, b"ab"), (0..0, b"<"), (0..0, b"-"), (10..10, b">")];
        assert_eq!(
            splice(body, &mut edits).unwrap(),
            b"<-01ab4567".iter().chain(b"9>").copied().collect::<Vec<u8>>()
        );
    }

    #[test]
    fn splice_refuses_overlaps_and_ranges_outside() {
        assert!(splice(b"0123", &mut [(0..2, ""), (1..3, "")]).is_err());
        assert!(splice(b"0123", &mut [(3..5, "")]).is_err());
        assert!(splice(b"0123", &mut [(5..5, "")]).is_err());
        let (start, end) = (3, 1);
        assert!(splice(b"0123", &mut [(start..end, "")]).is_err());
    }

    #[test]
    fn with_id_has_exact_bytes() {
        assert_eq!(
            with_id(br#"{"tools":[]}"#, "\"7\""),
            br#"{"jsonrpc":"2.0","id":"7","result":{"tools":[]}}"#
        );
    }

    proptest! {
        #[test]
        fn quote_round_trips(value in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&quote(&value)).unwrap(), value);
        }

        #[test]
        fn splice_equals_replacing_ranges_from_the_end(
            body in proptest::collection::vec(any::<u8>(), 0..60),
            cuts in proptest::collection::btree_set(0usize..60, 0..10),
            with in "[a-z]{0,5}",
        ) {
            let cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= body.len()).collect();
            let mut edits: Vec<_> = cuts.chunks_exact(2).map(|pair| (pair[0]..pair[1], with.as_str())).collect();
            let mut expected = body.clone();
            for (range, with) in edits.iter().rev() {
                expected.splice(range.clone(), with.bytes());
            }
            edits.reverse();
            prop_assert_eq!(splice(&body, &mut edits).unwrap(), expected);
        }
    }
}
