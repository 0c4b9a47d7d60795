//! The access log: one JSON line for each request, whatever became of it.
//!
//! Fields without a value are left out. What clients choose is bounded and escaped; what authorizes them is never
//! here: no token, no key, no session id, no argument. The names of resources are URIs and may carry a password or a
//! signature, so user information, query and fragment are cut from them.
//!
//! A line is written into a buffer of the calling thread and copied to the queue of [`LineQueue`]: no allocation once
//! the buffer has grown, and no wait.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use super::family::Counter;
use super::json::Object;
use super::label::Outcome;
use super::lines::{LineQueue, Output, OutputError};
use super::session::SessionHash;
use super::trace::TraceId;
use crate::base::net::AddressText;
use crate::base::{PrincipalKind, RequestId, Role};

/// Most characters of a name or a user agent.
pub const MAX_NAME: usize = 256;

/// Most characters of an error text.
pub const MAX_ERROR: usize = 1024;

/// Bytes that wait for the output before lines are lost.
pub const DEFAULT_CAPACITY: usize = 8 * 1024 * 1024;

/// What is known about a finished request. The same record makes the log line and the span.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When the request began, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The id that the client got.
    pub request_id: RequestId,
    /// Whose route it is; empty if none matched.
    pub tenant: &'a str,
    /// The route, if one matched.
    pub route: Option<&'a str>,
    /// The server that was asked.
    pub server: Option<&'a str>,
    /// The target that answered last.
    pub target: Option<&'a str>,
    /// The caller's stable id.
    pub principal: Option<&'a str>,
    /// What kind of caller.
    pub kind: Option<PrincipalKind>,
    /// The caller's most powerful role.
    pub role: Option<Role>,
    /// The caller's address, after trusted proxies.
    pub client_ip: Option<IpAddr>,
    /// The HTTP method.
    pub http_method: &'a str,
    /// The HTTP status sent, 0 if none was.
    pub status: u16,
    /// The JSON-RPC method.
    pub rpc_method: Option<&'a str>,
    /// The code of the JSON-RPC error sent.
    pub rpc_code: Option<i64>,
    /// The JSON-RPC id, as text. For spans only.
    pub rpc_id: Option<&'a str>,
    /// The tool, prompt or resource.
    pub name: Option<&'a str>,
    /// `modern` or `legacy`.
    pub era: Option<&'static str>,
    /// The protocol revision.
    pub protocol: Option<&'a str>,
    /// The hash of the session id.
    pub session: Option<SessionHash>,
    /// How it ended.
    pub outcome: Outcome,
    /// The policy rule that decided.
    pub rule: Option<&'a str>,
    /// The limit that refused.
    pub limit: Option<&'a str>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
    /// How much of that the gateway waited for upstreams.
    pub upstream: Duration,
    /// The trace that the request belongs to.
    pub trace_id: Option<TraceId>,
    /// The `User-Agent` header.
    pub user_agent: Option<&'a [u8]>,
    /// What went wrong, in words for operators.
    pub error: Option<&'a str>,
}

impl<'a> AccessRecord<'a> {
    /// A record with what every request has.
    pub fn new(time_ms: u64, request_id: RequestId, http_method: &'a str, outcome: Outcome) -> Self {
        Self {
            time_ms,
            request_id,
            tenant: "",
            route: None,
            server: None,
            target: None,
            principal: None,
            kind: None,
            role: None,
            client_ip: None,
            http_method,
            status: 0,
            rpc_method: None,
            rpc_code: None,
            rpc_id: None,
            name: None,
            era: None,
            protocol: None,
            session: None,
            outcome,
            rule: None,
            limit: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream: Duration::ZERO,
            trace_id: None,
            user_agent: None,
            error: None,
        }
    }

    /// The gateway's own share of the duration.
    pub fn gateway(&self) -> Duration {
        self.duration.saturating_sub(self.upstream)
    }

    /// Appends the record as one JSON object, without a newline.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut o = Object::begin(out);
        o.time("time", self.time_ms);
        o.plain("request_id", self.request_id);
        o.str("tenant", self.tenant);
        let bounded = [
            ("route", self.route),
            ("server", self.server),
            ("target", self.target),
            ("principal", self.principal),
        ];
        for (key, value) in bounded {
            if let Some(value) = value {
                o.bounded(key, value, MAX_NAME);
            }
        }
        if let Some(kind) = self.kind {
            o.str("kind", kind.as_str());
        }
        if let Some(role) = self.role {
            o.str("role", role.as_str());
        }
        if let Some(ip) = self.client_ip {
            o.str("client_ip", AddressText::new(ip).as_str());
        }
        o.bounded("http_method", self.http_method, MAX_NAME);
        if self.status != 0 {
            o.number("status", u64::from(self.status));
        }
        if let Some(method) = self.rpc_method {
            o.bounded("rpc_method", method, MAX_NAME);
        }
        if let Some(code) = self.rpc_code {
            o.signed("rpc_code", code);
        }
        if let Some(name) = self.name {
            match split_uri(name) {
                None => o.bounded("name", name, MAX_NAME),
                Some((scheme, rest)) => o.bounded("name", &format!("{scheme}{rest}"), MAX_NAME),
            }
        }
        if let Some(era) = self.era {
            o.str("era", era);
        }
        if let Some(protocol) = self.protocol {
            o.bounded("protocol", protocol, MAX_NAME);
        }
        if let Some(session) = self.session {
            o.plain("session", session);
        }
        o.str("outcome", self.outcome.as_str());
        if let Some(rule) = self.rule {
            o.bounded("rule", rule, MAX_NAME);
        }
        if let Some(limit) = self.limit {
            o.bounded("limit", limit, MAX_NAME);
        }
        o.number("bytes_in", self.bytes_in);
        o.number("bytes_out", self.bytes_out);
        o.millis("duration_ms", micros(self.duration));
        o.millis("upstream_ms", micros(self.upstream));
        o.number("gateway_us", micros(self.gateway()));
        if let Some(trace) = self.trace_id {
            o.plain("trace_id", trace);
        }
        if let Some(agent) = self.user_agent {
            o.lossy("user_agent", agent, MAX_NAME);
        }
        if let Some(error) = self.error {
            o.bounded("error", error, MAX_ERROR);
        }
        o.end();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// For a URI that holds something to hide: its scheme with `://`, and what may be shown of the rest. `None` for
/// anything that may be shown as it is.
fn split_uri(name: &str) -> Option<(&str, &str)> {
    let colon = memchr::memchr(b':', name.as_bytes())?;
    let (scheme, rest) = match name[colon..].starts_with("://") {
        true => name.split_at(colon + 3),
        false => name.split_at(colon + 1),
    };
    let shown = rest.find(['?', '#']).map_or(rest, |end| &rest[..end]);
    let authority = &shown[..shown.find('/').unwrap_or(shown.len())];
    let shown = match authority.rfind('@') {
        Some(at) if scheme.ends_with("://") => &shown[at + 1..],
        _ => shown,
    };
    (shown.len() < rest.len()).then_some((scheme, shown))
}

/// A name that may leave the process in logs and spans: see the module's words on resources.
pub(super) fn safe_name(name: &str) -> String {
    let name = match split_uri(name) {
        None => name.to_owned(),
        Some((scheme, rest)) => format!("{scheme}{rest}"),
    };
    name.chars().take(MAX_NAME).collect()
}

/// Where access records go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<LineQueue>);

impl AccessLog {
    /// Starts the writer; lost lines are added to `dropped`.
    pub fn start(output: Output, capacity: usize, dropped: Counter) -> Result<Self, OutputError> {
        LineQueue::start(output, capacity, dropped, "tg-access-log").map(|queue| Self(Some(queue)))
    }

    /// A log that writes nothing and costs nothing.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Queues the line of a finished request. Never waits; a line that finds no room is counted.
    pub fn record(&self, record: &AccessRecord<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
        }
        let Some(queue) = &self.0 else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            record.write(line);
            queue.push(line);
        });
    }

    /// See [`LineQueue::reopen`].
    pub fn reopen(&self) {
        if let Some(queue) = &self.0 {
            queue.reopen();
        }
    }

    /// See [`LineQueue::flush`].
    pub fn flush(&self, timeout: Duration) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.flush(timeout))
    }

    /// See [`LineQueue::shutdown`].
    pub fn shutdown(&self, timeout: Duration) -> bool {
        self.0.as_ref().is_none_or(|queue| queue.shutdown(timeout))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn record() -> AccessRecord<'static> {
        AccessRecord::new(1_700_000_000_123, RequestId::fresh(), "POST", Outcome::Ok)
    }

    fn parse(record: &AccessRecord<'_>) -> Value {
        let mut out = Vec::new();
        record.write(&mut out);
        assert!(!out.contains(&b'\n'), "one line");
        serde_json::from_slice(&out).expect("valid JSON")
    }

    #[test]
    fn a_full_record_has_every_field() {
        let id = RequestId::fresh();
        let record = AccessRecord {
            request_id: id,
            tenant: "acme",
            route: Some("weather"),
            server: Some("w"),
            target: Some("http://127.0.0.1:9001/mcp"),
            principal: Some("user:1"),
            kind: Some(PrincipalKind::User),
            role: Some(Role::Developer),
            client_ip: Some("2001:db8::1".parse().expect("an address")),
            status: 200,
            rpc_method: Some("tools/call"),
            rpc_code: Some(-32602),
            name: Some("get_forecast"),
            era: Some("modern"),
            protocol: Some("2026-07-28"),
            session: Some(SessionHash::of(b"abc")),
            outcome: Outcome::Denied,
            rule: Some("staff_only/2"),
            limit: Some("by_role"),
            bytes_in: 10,
            bytes_out: 2000,
            duration: Duration::from_micros(12_345),
            upstream: Duration::from_micros(12_300),
            trace_id: Some(TraceId::from_bytes([0xab; 16])),
            user_agent: Some(b"agent/1.0"),
            error: Some("no"),
            ..record()
        };
        let want = json!({
            "time": "2023-11-14T22:13:20.123Z", "request_id": id.to_string(), "tenant": "acme", "route": "weather",
            "server": "w", "target": "http://127.0.0.1:9001/mcp", "principal": "user:1", "kind": "user",
            "role": "developer", "client_ip": "2001:db8::1", "http_method": "POST", "status": 200,
            "rpc_method": "tools/call", "rpc_code": -32602, "name": "get_forecast", "era": "modern",
            "protocol": "2026-07-28", "session": "ba7816bf8f01cfea", "outcome": "denied", "rule": "staff_only/2",
            "limit": "by_role", "bytes_in": 10, "bytes_out": 2000, "duration_ms": 12.345, "upstream_ms": 12.3,
            "gateway_us": 45, "trace_id": "abababababababababababababababab", "user_agent": "agent/1.0", "error": "no",
        });
        assert_eq!(parse(&record), want);
    }

    #[test]
    fn an_empty_record_leaves_fields_out() {
        let json = parse(&record());
        let fields: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        let want = [
            "time",
            "request_id",
            "tenant",
            "http_method",
            "outcome",
            "bytes_in",
            "bytes_out",
            "duration_ms",
            "upstream_ms",
            "gateway_us",
        ];
        let sorted = |mut v: Vec<&str>| {
            v.sort_unstable();
            v.join(",")
        };
        assert_eq!(sorted(fields), sorted(want.to_vec()));
    }

    #[test]
    fn names_are_bounded() {
        let long = "ü".repeat(300);
        let json = parse(&AccessRecord { name: Some(&long), ..record() });
        assert_eq!(json["name"], format!("{}…", "ü".repeat(256)));
    }

    #[test]
    fn credentials_are_cut_from_uris() {
        for (uri, want) in [
            ("postgres://ann:secret@db:5432/x", "postgres://db:5432/x"),
            ("https://h/p?sig=abc#f", "https://h/p"),
            ("https://user@h/a@b", "https://h/a@b"),
            ("file:///etc/hosts", "file:///etc/hosts"),
            ("mailto:a@b", "mailto:a@b"),
            ("data:text/plain?token=1", "data:text/plain"),
            ("get_forecast", "get_forecast"),
            ("ns:tool", "ns:tool"),
            ("ü:?", "ü:"),
        ] {
            assert_eq!(parse(&AccessRecord { name: Some(uri), ..record() })["name"], want);
            assert_eq!(safe_name(uri), want);
        }
    }

    proptest! {
        #[test]
        fn any_input_makes_one_valid_line(
            name in any::<String>(), principal in any::<String>(), agent in prop::collection::vec(any::<u8>(), 0..400),
            error in any::<String>(), method in any::<String>(),
        ) {
            parse(&AccessRecord {
                name: Some(&name),
                principal: Some(&principal),
                user_agent: Some(&agent),
                error: Some(&error),
                rpc_method: Some(&method),
                ..record()
            });
        }
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn shutdown_loses_nothing() {
        let buffer = Buffer::default();
        let output = Output::Writer(Box::new(buffer.clone()));
        let log = AccessLog::start(output, DEFAULT_CAPACITY, Counter::detached()).expect("starts");
        for status in 200..300 {
            log.record(&AccessRecord { status, ..record() });
        }
        assert!(log.shutdown(Duration::from_secs(10)));
        let text = String::from_utf8(buffer.0.lock().clone()).expect("UTF-8");
        let statuses: Vec<_> = text
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).expect("JSON")["status"].as_u64().expect("a number"))
            .collect();
        assert_eq!(statuses, (200..300).collect::<Vec<_>>());
    }

    #[test]
    fn lines_that_find_no_room_are_counted() {
        let dropped = Counter::detached();
        let log =
            AccessLog::start(Output::Writer(Box::new(std::io::sink())), 10, dropped.clone()).expect("starts");
        log.record(&record());
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn a_disabled_log_takes_everything() {
        let log = AccessLog::disabled();
        log.record(&record());
        assert!(log.flush(Duration::ZERO) && log.shutdown(Duration::ZERO));
    }
}
