//! Requests, byte for byte.

use std::net::SocketAddr;

/// Newest revision with sessions.
const LEGACY: &str = "2025-11-25";
/// First revision without.
const MODERN: &str = "2026-07-28";
/// Digits of a request id: always the same, so that one can be put in the place of another.
const ID_DIGITS: usize = 10;
const FIRST_ID: u64 = 1_000_000_000;

/// Where requests go, and as whom.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Who is dialled.
    pub address: SocketAddr,
    /// Path of the MCP endpoint.
    pub path: String,
    /// Bearer token.
    pub token: Option<String>,
}

/// How a tool answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As an event stream with one event.
    Events,
    /// As JSON.
    Json,
}

/// What is asked of the fixture's tool.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Bytes of text in the answer.
    pub bytes: usize,
    /// How it comes.
    pub shape: Shape,
    /// Milliseconds that the tool takes.
    pub delay_ms: u64,
}

/// A request whose id can be changed.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    id_at: Option<usize>,
    id: u64,
}

impl Request {
    /// The bytes with the id after the last one.
    pub fn advance(&mut self) -> &[u8] {
        if let Some(at) = self.id_at {
            self.id += 1;
            let mut left = self.id;
            for digit in self.bytes[at..at + ID_DIGITS].iter_mut().rev() {
                *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
                left /= 10;
            }
        }
        &self.bytes
    }

    /// Whether `body` answers the request sent last.
    pub fn is_answered_by(&self, body: &[u8]) -> bool {
        self.id_at.is_none() || super::number_after(body, "\"id\":") == Some(self.id)
    }
}

impl Endpoint {
    /// The same, with another path.
    pub fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// The same, with another token or none.
    pub fn with_token(&self, token: Option<String>) -> Self {
        Self { token, ..self.clone() }
    }

    /// `initialize`.
    pub fn initialize(&self) -> Request {
        let params = format!(
            r#"{{"protocolVersion":"{LEGACY}","capabilities":{{}},"clientInfo":{{"name":"tollgate-load","version":"1"}}}}"#
        );
        self.post(None, &[], &rpc("initialize", &params, true))
    }

    /// `notifications/initialized`.
    pub fn initialized(&self, session: &str) -> Request {
        self.post(Some(session), &[], &rpc("notifications/initialized", "{}", false))
    }

    /// DELETE of a session.
    pub fn delete(&self, session: &str) -> Request {
        let head = self.head("DELETE", "application/json", Some(session), &[]);
        Request { bytes: format!("{head}\r\n").into_bytes(), id_at: None, id: 0 }
    }

    /// GET of a session's own stream.
    pub fn stream(&self, session: &str) -> Request {
        let head = self.head("GET", "text/event-stream", Some(session), &[]);
        Request { bytes: format!("{head}\r\n").into_bytes(), id_at: None, id: 0 }
    }

    /// `tools/call` in a session.
    pub fn call(&self, session: &str, call: Call) -> Request {
        self.post(Some(session), &[], &rpc("tools/call", &call.params(""), true))
    }

    /// `tools/call` of the revision without sessions.
    pub fn modern_call(&self, call: Call) -> Request {
        let meta = format!(",{}", meta());
        let headers = [("Mcp-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", "fill")];
        self.post(None, &headers, &rpc("tools/call", &call.params(&meta), true))
    }

    /// `tools/call` of any tool, in the revision without sessions. `arguments` is JSON.
    pub fn modern_tool(&self, name: &str, arguments: &str) -> Request {
        let params = format!(r#"{{"name":"{name}","arguments":{arguments},{}}}"#, meta());
        let headers = [("Mcp-Protocol-Version", MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", name)];
        self.post(None, &headers, &rpc("tools/call", &params, true))
    }

    /// `subscriptions/listen` for changes of the list of tools.
    pub fn listen(&self) -> Request {
        let params = format!(r#"{{"notifications":{{"toolsListChanged":true}},{}}}"#, meta());
        let headers = [("Mcp-Protocol-Version", MODERN), ("Mcp-Method", "subscriptions/listen")];
        self.post(None, &headers, &rpc("subscriptions/listen", &params, true))
    }

    fn post(&self, session: Option<&str>, headers: &[(&str, &str)], body: &str) -> Request {
        let head = self.head("POST", "application/json, text/event-stream", session, headers);
        let length = body.len();
        let bytes = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes();
        let id_at = memchr::memmem::find(&bytes, b"\"id\":").map(|at| at + 5);
        Request { bytes, id_at, id: FIRST_ID }
    }

    fn head(&self, method: &str, accept: &str, session: Option<&str>, headers: &[(&str, &str)]) -> String {
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tollgate-load/1\r\nAccept: {accept}\r\n",
            self.path, self.address
        );
        let mut add = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        if let Some(token) = &self.token {
            add("Authorization", &format!("Bearer {token}"));
        }
        if let Some(session) = session {
            add("Mcp-Session-Id", session);
            add("Mcp-Protocol-Version", LEGACY);
        }
        for (name, value) in headers {
            add(name, value);
        }
        head
    }
}

impl Call {
    fn params(self, meta: &str) -> String {
        let Self { bytes, delay_ms, .. } = self;
        let events = self.shape == Shape::Events;
        format!(
            r#"{{"name":"fill","arguments":{{"bytes":{bytes},"events":{events},"delay_ms":{delay_ms}}}{meta}}}"#
        )
    }
}

/// What each request of the revision without sessions says of its client.
fn meta() -> String {
    format!(
        r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientInfo":{{"name":"tollgate-load","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}"#
    )
}

fn rpc(method: &str, params: &str, id: bool) -> String {
    let id = if id { format!(r#""id":{FIRST_ID},"#) } else { String::new() };
    format!(r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{params}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_in_place_and_answers_are_told_apart() {
        let endpoint =
            Endpoint { address: "127.0.0.1:1".parse().unwrap(), path: "/mcp".to_owned(), token: None };
        let mut call = endpoint.call("s", Call { bytes: 1, shape: Shape::Json, delay_ms: 0 });
        let length = call.advance().len();
        let text = String::from_utf8(call.advance().to_vec()).unwrap();
        assert!(text.contains(r#""id":1000000002,"#) && text.len() == length, "{text}");
        assert!(call.is_answered_by(br#"{"jsonrpc":"2.0","id":1000000002,"result":{}}"#));
        assert!(!call.is_answered_by(br#"{"jsonrpc":"2.0","id":1000000001,"result":{}}"#));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
