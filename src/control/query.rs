//! `?filter=` and `?sort=`: conditions and order over the fields that a list allows.
//!
//! A filter is conditions joined by commas, all of which must hold: `outcome==denied,at>=2026-01-01T00:00:00Z`. A value
//! with a comma or quote is written in double quotes, in which `\` protects the next character. An order is field
//! names joined by commas, `-` before one reverses it. Which fields exist, what they hold and whether they can be
//! sorted by is a table per list; everything else is an error that names what there is. Nothing of a filter ever
//! becomes text of a query.

use std::cmp::Ordering;

use serde_json::Value;

use super::problem::{FieldError, Problem};

/// Longest filter taken, in bytes.
const MAX_FILTER: usize = 2048;
/// Most conditions of a filter.
const MAX_CONDITIONS: usize = 16;
/// Most fields of an order.
const MAX_SORT: usize = 3;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Number,
    /// Any text.
    Text,
    /// A time of RFC 3339; compared as milliseconds since the Unix epoch.
    Time,
}

/// A field that a list can be filtered by.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As callers write it, and as the item's JSON has it.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether the list can be sorted by it.
    pub sortable: bool,
}

/// A field that can be filtered and sorted by.
pub const fn sortable(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, sortable: true }
}

/// A field that can only be filtered by.
pub const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, sortable: false }
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `~`: the text contains the value, whatever the case.
    Contains,
    /// `==`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `<=`
    LessOrEqual,
    /// `<`
    Less,
    /// `!=`
    NotEqual,
}

/// Longer operators first: `>=` is not `>`.
const OPS: [(&str, Op); 7] = [
    ("==", Op::Equal),
    ("!=", Op::NotEqual),
    (">=", Op::GreaterOrEqual),
    ("<=", Op::LessOrEqual),
    (">", Op::Greater),
    ("<", Op::Less),
    ("~", Op::Contains),
];

/// One condition, with its value in the field's type.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// One of the list's fields.
    pub field: &'static str,
    /// How.
    pub op: Op,
    /// With what.
    pub value: Value,
}

/// One field of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// One of the list's sortable fields.
    pub field: &'static str,
    /// Largest first.
    pub descending: bool,
}

/// Reads a filter.
///
/// # Errors
///
/// 400 that says what is wrong, and which fields there are.
pub fn filter(text: Option<&str>, fields: &[Field]) -> Result<Vec<Condition>, Problem> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Vec::new()) };
    if text.len() > MAX_FILTER {
        return Err(Problem::parameter("filter", format!("it has more than {MAX_FILTER} bytes")));
    }
    let mut conditions = Vec::new();
    let mut rest = text;
    loop {
        let (condition, after) = condition(rest, fields)?;
        conditions.push(condition);
        match after {
            None => return Ok(conditions),
            Some(_) if conditions.len() == MAX_CONDITIONS => {
                return Err(Problem::parameter(
                    "filter",
                    format!("it has more than {MAX_CONDITIONS} conditions"),
                ));
            }
            Some(after) => rest = after,
        }
    }
}

/// One condition and what follows the comma after it.
fn condition<'t>(text: &'t str, fields: &[Field]) -> Result<(Condition, Option<&'t str>), Problem> {
    let end = text.find(['=', '!', '<', '>', '~', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = name.trim();
    let Some(field) = fields.iter().find(|f| f.name == name) else {
        let known: Vec<_> = fields.iter().map(|f| f.name).collect();
        return Err(bad("filter", format!("there is no field `{}`", shown(name)), known.join(", ")));
    };
    let Some((op, rest)) = OPS.iter().find_map(|(t, op)| Some((*op, rest.strip_prefix(t)?))) else {
        let expected = "==, !=, >=, <=, >, < or ~ after the field";
        return Err(bad("filter", format!("`{name}` is not compared with anything"), expected));
    };
    if op == Op::Contains && field.kind != Kind::Text {
        return Err(bad("filter", format!("`~` needs text, and `{name}` is none"), "==, !=, >=, <=, > or <"));
    }
    if field.kind == Kind::Bool && !matches!(op, Op::Equal | Op::NotEqual) {
        return Err(bad("filter", format!("`{name}` is true or false and has no order"), "== or !="));
    }
    let (raw, after) = value(rest)?;
    let parsed = typed(&raw, field.kind).ok_or_else(|| {
        let expected = match field.kind {
            Kind::Bool => "true or false",
            Kind::Number => "a whole number",
            Kind::Text => "text without control characters",
            Kind::Time => "a time such as 2026-01-31T12:00:00Z",
        };
        bad("filter", format!("`{}` is no value of `{name}`", shown(&raw)), expected)
    })?;
    Ok((Condition { field: field.name, op, value: parsed }, after))
}

/// A value, quoted or not, and what follows the comma after it.
fn value(text: &str) -> Result<(String, Option<&str>), Problem> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Ok(match text.split_once(',') {
            Some((value, after)) => (value.to_owned(), Some(after)),
            None => (text.to_owned(), None),
        });
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '"' => {
                return match &quoted[at + 1..] {
                    "" => Ok((value, None)),
                    rest => match rest.strip_prefix(',') {
                        Some(after) => Ok((value, Some(after))),
                        None => Err(Problem::parameter("filter", "a comma must follow a quoted value")),
                    },
                };
            }
            c => value.push(c),
        }
    }
    Err(Problem::parameter("filter", "a quote is not closed"))
}

fn typed(raw: &str, kind: Kind) -> Option<Value> {
    match kind {
        Kind::Bool => raw.parse::<bool>().ok().map(Value::from),
        Kind::Number => raw.parse::<i64>().ok().map(Value::from),
        Kind::Text => (!raw.chars().any(char::is_control)).then(|| Value::from(raw)),
        Kind::Time => time_ms(raw).map(Value::from),
    }
}

/// Milliseconds since the Unix epoch of a time of RFC 3339.
pub fn time_ms(text: &str) -> Option<i64> {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Reads an order; `default` is used if there is none.
///
/// # Errors
///
/// 400 that says which fields there are.
pub fn sort(text: Option<&str>, fields: &[Field], default: Sort) -> Result<Vec<Sort>, Problem> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(vec![default]) };
    let mut order: Vec<Sort> = Vec::new();
    for part in text.split(',') {
        let (name, descending) = match part.strip_prefix('-') {
            Some(name) => (name, true),
            None => (part, false),
        };
        let Some(field) = fields.iter().find(|f| f.sortable && f.name == name) else {
            let known: Vec<_> = fields.iter().filter(|f| f.sortable).map(|f| f.name).collect();
            return Err(bad("sort", format!("cannot sort by `{}`", shown(name)), known.join(", ")));
        };
        if order.len() == MAX_SORT || order.iter().any(|s| s.field == field.name) {
            return Err(Problem::parameter("sort", format!("at most {MAX_SORT} fields, each once")));
        }
        order.push(Sort { field: field.name, descending });
    }
    Ok(order)
}

impl Condition {
    /// Whether an item's JSON fulfils the condition. A field that is not there or null fulfils only `!=`.
    pub fn holds(&self, item: &Value) -> bool {
        let found = &item[self.field];
        if let (Op::Contains, Value::String(text), Value::String(part)) = (self.op, found, &self.value) {
            return text.to_lowercase().contains(&part.to_lowercase());
        }
        let Some(order) = compare(found, &self.value) else { return self.op == Op::NotEqual };
        match self.op {
            Op::Contains => false,
            Op::Equal => order == Ordering::Equal,
            Op::NotEqual => order != Ordering::Equal,
            Op::Greater => order == Ordering::Greater,
            Op::GreaterOrEqual => order != Ordering::Less,
            Op::Less => order == Ordering::Less,
            Op::LessOrEqual => order != Ordering::Greater,
        }
    }
}

/// The order of two plain values of one type.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        // A time: the condition has milliseconds.
        (Value::String(a), Value::Number(b)) => Some(time_ms(a)?.cmp(&b.as_i64()?)),
        _ => None,
    }
}

/// A total order of plain values for sorting: nothing before something.
pub fn total(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    rank(a).cmp(&rank(b)).then_with(|| compare(a, b).unwrap_or(Ordering::Equal))
}

fn bad(parameter: &str, detail: String, expected: impl Into<String>) -> Problem {
    let error = FieldError::new(format!("?{parameter}"), detail).expecting(expected);
    Problem::parameter(parameter, "").replacing_errors([error])
}

/// What a caller wrote, short enough to repeat.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: &[Field] = &[
        sortable("name", Kind::Text),
        sortable("at", Kind::Time),
        field("count", Kind::Number),
        field("ok", Kind::Bool),
    ];

    fn holds(text: &str, item: Value) -> bool {
        filter(Some(text), FIELDS).unwrap_or_else(|p| panic!("{p:?}")).iter().all(|c| c.holds(&item))
    }

    #[test]
    fn conditions_compare_by_the_type_of_the_field() {
        let item = json!({"name": "Weather, Zurich", "at": "2026-01-02T00:00:00Z", "count": 10, "ok": true});
        for yes in [
            "name~zurich",
            "name==\"Weather, Zurich\"",
            "count>9,count<=10",
            "count!=9",
            "ok==true",
            "at>2026-01-01T00:00:00Z,at<=2026-01-02T01:00:00+01:00",
            "name>=W",
        ] {
            assert!(holds(yes, item.clone()), "{yes}");
        }
        for no in ["name==weather", "count>10", "ok!=true", "at<2026-01-02T00:00:00Z", "count==1,count==10"] {
            assert!(!holds(no, item.clone()), "{no}");
        }
        assert!(holds("name!=x", json!({})) && !holds("name==x", json!({})));
    }

    #[test]
    fn whatever_is_not_in_the_table_is_refused() {
        for bad in [
            "secret==1",
            "name",
            "name=x",
            "count==ten",
            "count~1",
            "ok>true",
            "at>=yesterday",
            "name==\"open",
            "name==\"a\"b",
            "name==a,",
            ",",
            "name==a\u{0}",
            "1==1",
            "name==a;drop table users",
        ] {
            let refused = filter(Some(bad), FIELDS);
            assert!(refused.is_err() || bad == "name==a;drop table users", "{bad}");
        }
        assert!(filter(Some(&"name==a,".repeat(200)), FIELDS).is_err());
        assert!(filter(Some(&vec!["name==a"; 17].join(",")), FIELDS).is_err());
    }

    #[test]
    fn orders_name_sortable_fields_once() {
        let default = Sort { field: "name", descending: false };
        assert_eq!(sort(None, FIELDS, default).unwrap(), [default]);
        let order = sort(Some("-at,name"), FIELDS, default).unwrap();
        assert_eq!(order, [Sort { field: "at", descending: true }, default]);
        for bad in ["count", "name,name", "-", "name;", "--name", "name,at,name,at"] {
            assert!(sort(Some(bad), FIELDS, default).is_err(), "{bad}");
        }
    }
}
