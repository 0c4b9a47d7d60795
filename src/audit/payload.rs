//! The readable form of an event: JSON whose bytes are what the hash chain commits to.
//!
//! Canonical because it is made in one way only: fields in the order of [`Event`], absent ones left out, no space between
//! tokens. Nothing ever parses it to write it again; the store and exports keep the bytes.
//!
//! Bodies come last, so that an event without them is a beginning of the event. Inside of a text a quotation mark has a
//! backslash before it, so that `,"request_body":"` is found only where that field begins: `store::audit_read` cuts there.

use std::fmt::Write as _;

use super::event::Event;
use super::hex;

/// Fields of an event that only auditors read.
pub const BODIES: [&str; 2] = ["request_body", "response_body"];

/// Appends the event as one JSON object. Tenant, class and time are not in it: they belong to the link.
pub fn render(event: &Event<'_>, out: &mut String) {
    out.push('{');
    let begin = out.len();
    for (name, value) in event.named_texts() {
        key(out, begin, name);
        string(out, value);
    }
    for (name, value) in event.named_numbers() {
        key(out, begin, name);
        if name == "session" {
            let _ = write!(out, "\"{value:016x}\"");
        } else {
            let _ = write!(out, "{value}");
        }
    }
    if let Some(code) = event.rpc_code {
        key(out, begin, "rpc_code");
        let _ = write!(out, "{code}");
    }
    if let Some(ip) = event.client_ip {
        key(out, begin, "client_ip");
        let _ = write!(out, "\"{ip}\"");
    }
    if let Some(id) = event.request_id {
        key(out, begin, "request_id");
        out.push('"');
        out.push_str(uuid::Uuid::from_bytes(id).hyphenated().encode_lower(&mut [0; 36]));
        out.push('"');
    }
    if let Some(id) = event.trace_id {
        key(out, begin, "trace_id");
        let _ = write!(out, "\"{}\"", hex(&id));
    }
    if let Some(count) = event.count {
        key(out, begin, "count");
        let _ = write!(out, "{count}");
    }
    if let Some(since) = event.since_us.and_then(rfc3339) {
        key(out, begin, "since");
        string(out, &since);
    }
    for (name, cut) in [("request_cut", event.request_cut), ("response_cut", event.response_cut)] {
        if let Some(cut) = cut {
            key(out, begin, name);
            let _ = write!(out, "{cut}");
        }
    }
    for (name, body) in BODIES.into_iter().zip([event.request_body, event.response_body]) {
        if let Some(body) = body {
            key(out, begin, name);
            string(out, &String::from_utf8_lossy(body));
        }
    }
    out.push('}');
}

fn rfc3339(micros: u64) -> Option<String> {
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()?;
    time.format(&time::format_description::well_known::Rfc3339).ok()
}

fn key(out: &mut String, begin: usize, name: &'static str) {
    if out.len() > begin {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

fn string(out: &mut String, value: &str) {
    // Most values are names: nothing to escape.
    if value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(value);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(value).expect("a text always serializes"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::*;

    #[test]
    fn fields_come_in_one_order_and_any_text_is_json() {
        let name = "a\"b\\c\n\u{1}ü";
        let event = Event {
            name: Some(name),
            principal: Some("ann"),
            status: Some(200),
            session: Some(255),
            rpc_code: Some(-32602),
            client_ip: Some("::1".parse().unwrap()),
            request_id: Some([1; 16]),
            trace_id: Some([2; 16]),
            count: Some(7),
            since_us: Some(1_796_000_000_250_000),
            request_body: Some(b"{\xff}"),
            ..Event::new(5, "t", Class::Data)
        };
        let mut text = String::new();
        render(&event, &mut text);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["name"], name);
        assert_eq!(json["session"], "00000000000000ff");
        assert_eq!(json["request_id"], "01010101-0101-0101-0101-010101010101");
        assert_eq!((&json["count"], &json["since"]), (&7.into(), &"2026-11-30T00:53:20.25Z".into()));
        assert_eq!(json["request_body"], "{\u{fffd}}");
        assert!(
            text.starts_with(r#"{"principal":"ann","name":"#) && text.contains(r#""status":200,"session""#),
            "{text}"
        );
        let mut empty = String::new();
        render(&Event::new(5, "t", Class::Data), &mut empty);
        assert_eq!(empty, "{}");
    }

    #[test]
    fn bodies_come_last_and_are_cut_off_whatever_texts_say() {
        let tricky = r#"x,"request_body":"y{"response_body":"#;
        let plain = Event { name: Some(tricky), request_cut: Some(3), ..Event::new(5, "t", Class::Data) };
        let secret: &[u8] = br#"{"a":"s3cret","response_body":"s3cret"}"#;
        let text = |event: &Event<'_>| {
            let mut out = String::new();
            render(event, &mut out);
            out
        };
        // As the store does.
        let cut = |payload: &str| {
            let first = BODIES.iter().filter_map(|name| payload.find(&format!(",\"{name}\":\""))).min();
            first.map_or_else(|| payload.to_owned(), |at| format!("{}}}", &payload[..at]))
        };
        let without = text(&plain);
        for (request, response) in [(Some(secret), Some(secret)), (None, Some(secret)), (Some(secret), None)]
        {
            let whole = text(&Event { request_body: request, response_body: response, ..plain });
            assert!(whole.contains("s3cret"));
            assert_eq!(cut(&whole), without);
        }
        assert_eq!(cut(&without), without);
    }
}
