//! Exports for reading elsewhere: CSV and CEF. Neither can be verified; JSON lines can.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::event::{Class, Event};

/// One event as a table shows it.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Which plane.
    pub class: Class,
    /// Boot id of the writer.
    pub writer: &'a str,
    /// Its number in its chain.
    pub sequence: u64,
    /// When, as RFC 3339.
    pub time: &'a str,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The payload; `None` if it was erased.
    pub payload: Option<&'a str>,
}

/// Fields of a payload that are no text or number of [`Event`].
const OTHERS: [&str; 6] = ["rpc_code", "client_ip", "request_id", "trace_id", "count", "since"];

fn fields() -> impl Iterator<Item = &'static str> {
    Event::TEXTS.iter().chain(Event::NUMBERS).copied().chain(OTHERS)
}

/// The first line of a CSV export.
pub fn csv_header() -> String {
    let mut line = "time,tenant,class,writer,sequence".to_owned();
    for field in fields() {
        line.push(',');
        line.push_str(field);
    }
    line.push_str("\r\n");
    line
}

/// One line of CSV (RFC 4180). What a spreadsheet would take for a formula gets an apostrophe in front.
pub fn csv(row: &Row<'_>) -> String {
    let payload = parse(row.payload);
    let mut line = String::new();
    let _ = write!(
        line,
        "{},{},{},{},{}",
        row.time,
        cell(row.tenant),
        row.class.as_str(),
        row.writer,
        row.sequence
    );
    for field in fields() {
        line.push(',');
        line.push_str(&cell(&text(payload.get(field))));
    }
    line.push_str("\r\n");
    line
}

fn cell(value: &str) -> String {
    let guard = value.starts_with(['=', '+', '@', '\t', '\r'])
        || (value.starts_with('-') && value.parse::<f64>().is_err());
    let value = if guard { format!("'{value}") } else { value.to_owned() };
    if value.contains([',', '"', '\n', '\r']) { format!("\"{}\"", value.replace('"', "\"\"")) } else { value }
}

/// One line of ArcSight's Common Event Format.
pub fn cef(row: &Row<'_>) -> String {
    let payload = parse(row.payload);
    let get = |field: &str| text(payload.get(field));
    let decision = get("decision");
    let id = match row.class {
        Class::Control => get("action"),
        Class::Data => get("method"),
    };
    let severity = match decision.as_str() {
        "deny" => 6,
        "limit" => 4,
        "error" => 5,
        _ => 2,
    };
    let mut line = format!(
        "CEF:0|Tollgate|Tollgate|{}|{}|{}|{severity}|rt={} externalId={}-{}-{}",
        env!("CARGO_PKG_VERSION"),
        head(if id.is_empty() { row.class.as_str() } else { &id }),
        head(&format!("{} {}", row.class.as_str(), get("outcome"))),
        row.time_ms,
        row.writer,
        row.class.as_str(),
        row.sequence,
    );
    let extensions = [
        ("suser", "principal"),
        ("src", "client_ip"),
        ("act", "decision"),
        ("outcome", "outcome"),
        ("reason", "reason"),
        ("requestMethod", "method"),
        ("destinationServiceName", "server"),
        ("in", "bytes_in"),
        ("out", "bytes_out"),
        ("cnt", "count"),
    ];
    for (name, field) in extensions {
        let value = get(field);
        if !value.is_empty() {
            let _ = write!(line, " {name}={}", extension(&value));
        }
    }
    // This format has times as milliseconds.
    let since = time::OffsetDateTime::parse(&get("since"), &time::format_description::well_known::Rfc3339);
    if let Ok(since) = since {
        let _ = write!(line, " start={}", since.unix_timestamp_nanos() / 1_000_000);
    }
    let labelled = [
        ("cs1", "tenant", row.tenant.to_owned()),
        ("cs2", "route", get("route")),
        ("cs3", "name", get("name")),
        ("cs4", "rule", get("rule")),
        ("cs5", "requestId", get("request_id")),
        ("cs6", "object", get("object")),
    ];
    for (name, label, value) in labelled {
        if !value.is_empty() {
            let _ = write!(line, " {name}Label={label} {name}={}", extension(&value));
        }
    }
    line.push('\n');
    line
}

fn parse(payload: Option<&str>) -> Map<String, Value> {
    payload.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn head(value: &str) -> String {
    value.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn extension(value: &str) -> String {
    value.replace('\\', "\\\\").replace('=', "\\=").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(payload: Option<&str>) -> Row<'_> {
        Row {
            tenant: "acme",
            class: Class::Data,
            writer: "w",
            sequence: 7,
            time: "2026-01-01T00:00:00Z",
            time_ms: 5,
            payload,
        }
    }

    #[test]
    fn cells_are_quoted_and_no_formula_gets_through() {
        let line = csv(&row(Some(r#"{"principal":"=cmd|'/C calc'!A0","name":"a,\"b\"","rpc_code":-5}"#)));
        assert!(line.contains(",'=cmd|'/C calc'!A0,"), "{line}");
        assert!(line.contains(r#","a,""b""","#) && line.contains(",-5,"), "{line}");
        assert_eq!(csv(&row(None)).matches(',').count(), csv_header().matches(',').count());
    }

    #[test]
    fn cef_escapes_what_would_end_a_field() {
        let line = cef(&row(Some(r#"{"method":"a|b","principal":"x=y\nz","decision":"deny"}"#)));
        assert!(line.starts_with("CEF:0|Tollgate|Tollgate|") && line.contains(r"|a\|b|"), "{line}");
        assert!(line.contains(r"suser=x\=y\nz") && line.contains("|6|"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn an_event_of_many_requests_says_so_in_every_form() {
        let payload = r#"{"outcome":"unauthenticated","count":4711,"since":"2026-01-01T00:00:00Z"}"#;
        let line = csv(&row(Some(payload)));
        assert!(line.ends_with(",4711,2026-01-01T00:00:00Z\r\n"), "{line}");
        assert!(csv_header().ends_with(",count,since\r\n"));
        let line = cef(&row(Some(payload)));
        assert!(line.contains(" cnt=4711 start=1767225600000"), "{line}");
    }
}
