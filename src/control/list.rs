//! Lists that are in memory: filter, order and page over what items show.
//!
//! For collections whose size a document or the process bounds, and for rows of the store up to [`MAX_ROWS`] where a filter
//! or an order is asked for; what can grow without bound is filtered by the store.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;

use super::page::{Fingerprint, Page, Slice};
use super::problem::Problem;
use super::query::{self, Field, Sort};

/// Most rows of the store that are looked through for a filter or an order.
pub(super) const MAX_ROWS: usize = 10_000;

/// 400: there is too much to look through.
pub(super) fn too_many_rows() -> Problem {
    let detail = format!("there are more than {MAX_ROWS}: this list has only its own order, and no filter");
    Problem::parameter("filter", detail)
}

/// All rows of a list of the store, page by page: `$rows` gives those after `$after`, and `$key` what a row is listed by.
macro_rules! every_row {
    (|$after:ident| $rows:expr, $key:expr) => {{
        let (mut all, mut last) = (Vec::new(), None);
        loop {
            let $after = last.as_ref();
            let rows = $rows.await?;
            let more = rows.len() >= crate::store::Page::MAX as usize;
            last = rows.last().map($key);
            all.extend(rows);
            if !more {
                break all;
            }
            if all.len() >= crate::control::list::MAX_ROWS {
                return Err(crate::control::list::too_many_rows());
            }
        }
    }};
}
pub(super) use every_row;

/// The parameters of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Items of a page, 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the one before it.
    #[param(max_length = 2048)]
    pub cursor: Option<String>,
    /// Conditions joined by commas, all of which must hold: `name==weather`, `count>=10`, `name~eat`. Values with
    /// commas in double quotes.
    #[param(max_length = 2048)]
    pub filter: Option<String>,
    /// Fields joined by commas, `-` before one for the reverse.
    pub sort: Option<String>,
}

impl ListQuery {
    /// Whether the list is asked for in its own order, all of it.
    pub(super) fn is_plain(&self) -> bool {
        let nothing = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        nothing(&self.filter) && nothing(&self.sort)
    }
}

/// One page of `items`. The first of `fields` names every item and is sortable; it breaks ties.
///
/// # Errors
///
/// 400 for a filter, order, cursor or limit that is not good.
pub fn page<T: Serialize>(
    items: impl IntoIterator<Item = T>,
    ask: &ListQuery,
    list: &[&str],
    fields: &[Field],
) -> Result<Page<Value>, Problem> {
    page_by(items, ask, list, fields, 1)
}

/// The same of items that it takes the first so many fields to name.
///
/// # Errors
///
/// As [`page`].
pub(super) fn page_by<T: Serialize>(
    items: impl IntoIterator<Item = T>,
    ask: &ListQuery,
    list: &[&str],
    fields: &[Field],
    naming: usize,
) -> Result<Page<Value>, Problem> {
    let unique = |field: &Field| Sort { field: field.name, descending: false };
    let conditions = query::filter(ask.filter.as_deref(), fields)?;
    let mut order = query::sort(ask.sort.as_deref(), fields, unique(&fields[0]))?;
    for unique in fields[..naming].iter().map(unique) {
        if !order.iter().any(|s| s.field == unique.field) {
            order.push(unique);
        }
    }
    let mut parts = list.to_vec();
    parts.extend([ask.filter.as_deref().unwrap_or_default(), ask.sort.as_deref().unwrap_or_default()]);
    let slice = Slice::read(ask.limit, ask.cursor.as_deref(), Fingerprint::of(&parts), order.len())?;
    let keys = |item: &Value| -> Vec<Value> { order.iter().map(|s| item[s.field].clone()).collect() };
    let compare = |a: &[Value], b: &[Value]| -> Ordering {
        order.iter().zip(a.iter().zip(b)).fold(Ordering::Equal, |so_far, (sort, (a, b))| {
            so_far.then_with(|| {
                let ascending = query::total(a, b);
                if sort.descending { ascending.reverse() } else { ascending }
            })
        })
    };
    let mut found: Vec<(Vec<Value>, Value)> = items
        .into_iter()
        .map(|item| serde_json::to_value(item).map_err(Problem::internal))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .filter(|item| conditions.iter().all(|c| c.holds(item)))
        .map(|item| (keys(&item), item))
        .filter(|(keys, _)| slice.after.as_ref().is_none_or(|after| compare(keys, after).is_gt()))
        .collect();
    found.sort_by(|(a, _), (b, _)| compare(a, b));
    found.truncate(slice.limit + 1);
    Ok(slice.page(found.into_iter().map(|(_, item)| item).collect(), keys))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::control::query::{Kind, sortable};

    const FIELDS: &[Field] = &[sortable("name", Kind::Text), sortable("size", Kind::Number)];

    #[test]
    fn items_that_two_fields_name_are_all_in_some_page() {
        let items: Vec<Value> =
            (0..9).map(|i| json!({"name": format!("n{}", i / 3), "size": i % 3})).collect();
        let mut ask = ListQuery { limit: Some(2), sort: Some("-name".to_owned()), ..ListQuery::default() };
        let mut joined = Vec::new();
        loop {
            let page = page_by(items.clone(), &ask, &["x"], FIELDS, 2).unwrap();
            joined.extend(page.items);
            ask.cursor = page.next_cursor;
            if ask.cursor.is_none() {
                break;
            }
        }
        assert_eq!(joined.len(), 9);
        assert_eq!((&joined[0]["name"], &joined[0]["size"]), (&json!("n2"), &json!(0)));
    }

    proptest! {
        /// Pages of any size, put together, are the sorted, filtered list.
        #[test]
        fn pages_join_to_the_whole(sizes in prop::collection::vec(0i64..5, 0..40), limit in 1usize..10, down: bool) {
            let items: Vec<Value> =
                sizes.iter().enumerate().map(|(i, size)| json!({"name": format!("n{i:02}"), "size": size})).collect();
            let mut ask = ListQuery {
                limit: Some(limit),
                filter: Some("size>=1".to_owned()),
                sort: Some(if down { "-size" } else { "size" }.to_owned()),
                ..ListQuery::default()
            };
            let mut joined = Vec::new();
            loop {
                let page = page(items.clone(), &ask, &["x"], FIELDS).unwrap();
                prop_assert!(page.items.len() <= limit);
                joined.extend(page.items);
                ask.cursor = page.next_cursor;
                if ask.cursor.is_none() {
                    break;
                }
            }
            let mut expected: Vec<Value> = items.into_iter().filter(|i| i["size"].as_i64() >= Some(1)).collect();
            expected.sort_by_key(|i| {
                let size = i["size"].as_i64().unwrap();
                (if down { -size } else { size }, i["name"].as_str().unwrap().to_owned())
            });
            prop_assert_eq!(joined, expected);
        }
    }
}
