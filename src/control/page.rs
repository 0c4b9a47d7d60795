//! Lists in pages: `?limit=&cursor=` → `{items, next_cursor}`.
//!
//! A cursor is what comes after the last item of a page: the values by which the list is sorted, the last one being
//! unique. It is opaque but no secret: it holds what its reader has just seen. What protects is that every query is
//! bound to its tenant again. A fingerprint over the list's address, filter and order makes a cursor of another list
//! an error instead of a wrong page. Cursors have no state here, so every replica takes those of every other.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::problem::Problem;

/// Items of a page unless the caller says otherwise.
pub const DEFAULT_LIMIT: usize = 50;
/// Most items of a page.
pub const MAX_LIMIT: usize = 500;
/// Longest cursor taken, in characters.
const MAX_CURSOR: usize = 2048;
/// Bytes of a fingerprint.
const FINGERPRINT: usize = 12;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The same page with other items.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}

/// Which list a cursor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; FINGERPRINT]);

impl Fingerprint {
    /// Of a list: the operation, whose it is, and the filter and order as written.
    pub fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut short = [0; FINGERPRINT];
        short.copy_from_slice(&digest[..FINGERPRINT]);
        Self(short)
    }
}

/// How many items, and after which.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// 1 to [`MAX_LIMIT`].
    pub limit: usize,
    /// The sort values of the last item of the page before.
    pub after: Option<Vec<Value>>,
    list: Fingerprint,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    /// Version of this form.
    v: u8,
    /// Fingerprint, base64.
    f: String,
    /// Sort values.
    k: Vec<Value>,
}

impl Slice {
    /// The only key after which the page begins, where that is a text.
    pub fn after_text(&self) -> Option<&str> {
        self.after.as_ref()?.first()?.as_str()
    }

    /// How many rows to ask the store for: one more than are shown tells whether there is another page.
    pub fn rows(&self) -> crate::store::Page {
        crate::store::Page::of(u32::try_from(self.limit).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// Reads `limit` and `cursor` for a list that is sorted by `keys` values.
    ///
    /// # Errors
    ///
    /// 400 if the limit is out of bounds, or the cursor is none of this list.
    pub fn read(
        limit: Option<usize>,
        cursor: Option<&str>,
        list: Fingerprint,
        keys: usize,
    ) -> Result<Self, Problem> {
        let limit = match limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => limit,
            _ => return Err(Problem::parameter("limit", format!("it must be from 1 to {MAX_LIMIT}"))),
        };
        let after = match cursor {
            None => None,
            Some(text) => Some(open(text, list, keys).ok_or_else(|| {
                Problem::parameter("cursor", "this is no cursor of this list with this filter and order")
            })?),
        };
        Ok(Self { limit, after, list })
    }

    /// A page of `found`, which should be one longer than the limit if there is more. `keys` gives an item's sort
    /// values.
    pub fn page<T>(&self, mut found: Vec<T>, keys: impl Fn(&T) -> Vec<Value>) -> Page<T> {
        let more = found.len() > self.limit;
        found.truncate(self.limit);
        let next_cursor = found.last().filter(|_| more).map(|last| self.cursor(keys(last)));
        Page { items: found, next_cursor }
    }

    /// The cursor of the page after an item with these sort values.
    pub fn cursor(&self, keys: Vec<Value>) -> String {
        let cursor = Cursor { v: 1, f: BASE64_URL_SAFE_NO_PAD.encode(self.list.0), k: keys };
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).expect("JSON values always serialize"))
    }
}

fn open(text: &str, list: Fingerprint, keys: usize) -> Option<Vec<Value>> {
    if text.len() > MAX_CURSOR {
        return None;
    }
    let cursor: Cursor = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let plain = cursor.k.iter().all(|k| match k {
        Value::String(text) => !text.contains('\0'),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::Array(_) | Value::Object(_) => false,
    });
    let ours = BASE64_URL_SAFE_NO_PAD.decode(&cursor.f).ok()? == list.0;
    (cursor.v == 1 && ours && plain && cursor.k.len() == keys).then_some(cursor.k)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(name: &str) -> Fingerprint {
        Fingerprint::of(&["list_servers", "a", name])
    }

    #[test]
    fn a_cursor_opens_only_for_its_list() {
        let slice = Slice::read(Some(2), None, list(""), 1).unwrap();
        let page = slice.page(vec!["a", "b", "c"], |i| vec![json!(i)]);
        assert_eq!(page.items, ["a", "b"]);
        let cursor = page.next_cursor.unwrap();
        let next = Slice::read(Some(2), Some(&cursor), list(""), 1).unwrap();
        assert_eq!(next.after, Some(vec![json!("b")]));
        assert!(Slice::read(Some(2), Some(&cursor), list("name==x"), 1).is_err(), "another filter");
        assert!(Slice::read(Some(2), Some(&cursor), Fingerprint::of(&["list_servers", "b", ""]), 1).is_err());
        assert!(Slice::read(Some(2), Some(&cursor), list(""), 2).is_err(), "another order");
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let slice = Slice::read(Some(3), None, list(""), 1).unwrap();
        assert!(slice.page(vec![1, 2, 3], |i| vec![json!(i)]).next_cursor.is_none());
    }

    #[test]
    fn limits_out_of_bounds_are_refused() {
        for limit in [0, MAX_LIMIT + 1, usize::MAX] {
            assert!(Slice::read(Some(limit), None, list(""), 1).is_err());
        }
        assert_eq!(Slice::read(None, None, list(""), 1).unwrap().limit, DEFAULT_LIMIT);
    }

    #[test]
    fn forged_cursors_are_refused() {
        let slice = Slice::read(None, None, list(""), 1).unwrap();
        for keys in [json!([["x"]]), json!([{"a": 1}]), json!(["\0"]), json!([]), json!(["a", "b"])] {
            let cursor = slice.cursor(keys.as_array().unwrap().clone());
            assert!(Slice::read(None, Some(&cursor), list(""), 1).is_err(), "{keys}");
        }
        for text in ["", "x", "e30", "' or 1=1--", &"A".repeat(10_000), "bnVsbA"] {
            assert!(Slice::read(None, Some(text), list(""), 1).is_err(), "{text}");
        }
    }
}
