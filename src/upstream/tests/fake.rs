//! A small MCP server on a real socket, whose behaviour a test can change while it runs.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mood {
    /// Legacy, but closes the connection instead of answering `initialize`.
    Cut,
    /// Speaks both eras.
    Dual,
    /// Answers every request with a page of HTML and this status.
    Html(u16),
    Legacy,
    Modern,
    /// Reads requests and never answers.
    Silent,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) requests: Vec<(String, String)>,
    pub(super) opened: usize,
    pub(super) closed: usize,
    pub(super) pings: usize,
    pub(super) discovers: usize,
    /// Head and body of the last request.
    pub(super) last: (String, String),
    sessions: Vec<String>,
}

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) addr: SocketAddr,
    pub(super) seen: Arc<Mutex<Seen>>,
    mood: Arc<Mutex<Mood>>,
    stream: bool,
}

pub(super) const DISCOVERED: &str = r#"{"resultType":"complete", "supportedVersions":["2026-07-28"],"capabilities":{},"ttlMs":0,"cacheScope":"private"}"#;

impl Fake {
    pub(super) async fn start(mood: Mood) -> Self {
        Self::start_with(mood, false).await
    }

    /// `stream`: answers in an event stream instead of JSON.
    pub(super) async fn start_with(mood: Mood, stream: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            addr: listener.local_addr().unwrap(),
            seen: Arc::default(),
            mood: Arc::new(Mutex::new(mood)),
            stream,
        };
        let accepting = fake.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(socket));
            }
        });
        fake
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    pub(super) fn forget_sessions(&self) {
        self.seen.lock().sessions.clear();
    }

    /// Sessions opened, closed and alive.
    pub(super) fn sessions(&self) -> (usize, usize, usize) {
        let seen = self.seen.lock();
        (seen.opened, seen.closed, seen.sessions.len())
    }

    pub(super) fn live_sessions(&self) -> usize {
        self.seen.lock().sessions.len()
    }

    async fn serve(self, mut socket: TcpStream) {
        let mut buffer = Vec::new();
        loop {
            let Some((head, body)) = read_request(&mut socket, &mut buffer).await else { return };
            let Some(answer) = self.answer(&head, &body) else {
                if *self.mood.lock() == Mood::Cut {
                    return;
                }
                // Silent: hold the connection until the client goes.
                let _ = socket.read(&mut [0; 1]).await;
                return;
            };
            if socket.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, head: &str, body: &str) -> Option<String> {
        let mood = *self.mood.lock();
        let mut seen = self.seen.lock();
        let verb = head.split(' ').next().unwrap_or_default().to_owned();
        let message: Value = serde_json::from_str(body).unwrap_or_default();
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        seen.requests.push((verb.clone(), method.clone()));
        seen.last = (head.to_owned(), body.to_owned());
        if method == "initialize" && matches!(mood, Mood::Cut | Mood::Silent) {
            seen.opened += 1;
        }
        match mood {
            Mood::Silent => return None,
            Mood::Cut if method == "initialize" => return None,
            Mood::Html(status) => return Some(response(status, "text/html", "<html></html>", "")),
            _ => {}
        }
        let legacy = mood != Mood::Modern;
        let session = header(head, "mcp-session-id");
        let result = |value: &str| self.reply(200, &message["id"], &format!("\"result\":{value}"), "");
        let error = |status, code: i64| {
            self.reply(
                status,
                &message["id"],
                &format!("\"error\":{{\"code\":{code},\"message\":\"no\"}}"),
                "",
            )
        };
        Some(match (verb.as_str(), method.as_str()) {
            ("GET", _) => response(if head.starts_with("GET /healthz ") { 204 } else { 405 }, "", "", ""),
            ("DELETE", _) => {
                let id = session.unwrap_or_default();
                seen.sessions.retain(|s| *s != id);
                seen.closed += 1;
                response(200, "", "", "")
            }
            (_, "server/discover") => {
                seen.discovers += 1;
                match mood {
                    Mood::Cut | Mood::Legacy => error(400, -32000),
                    _ => result(DISCOVERED),
                }
            }
            (_, "initialize") if legacy => {
                seen.opened += 1;
                let id = format!("session-{}", seen.opened);
                seen.sessions.push(id.clone());
                let value = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {} });
                self.reply(
                    200,
                    &message["id"],
                    &format!("\"result\":{value}"),
                    &format!("Mcp-Session-Id: {id}\r\n"),
                )
            }
            (_, "ping") if legacy => {
                if !seen.sessions.contains(&session.unwrap_or_default()) {
                    return Some(response(404, "text/plain", "no such session", ""));
                }
                seen.pings += 1;
                result("{}")
            }
            (_, "notifications/initialized") => response(202, "", "", ""),
            _ => error(404, -32601),
        })
    }

    fn reply(&self, status: u16, id: &Value, outcome: &str, headers: &str) -> String {
        let text = format!("{{\"jsonrpc\":\"2.0\",{outcome},\"id\":{id}}}");
        if self.stream {
            let text = format!(": hello\r\n\r\nevent: message\r\ndata: {text}\r\n\r\n");
            return response(status, "text/event-stream", &text, headers);
        }
        response(status, "application/json", &text, headers)
    }
}

fn response(status: u16, kind: &str, body: &str, headers: &str) -> String {
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status} X\r\n{kind}{length}{headers}\r\n{body}")
}

pub(super) fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

async fn read_request(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = header(&head, "content-length").map_or(0, |v| v.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&buffer[end + 4..end + 4 + length]).into_owned();
                buffer.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}
