//! Speaking MCP to a gateway, in both eras.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Client, Head, Request, Response};

/// The newest revision of the legacy era.
pub const LEGACY: &str = "2025-11-25";
/// The first revision of the modern era.
pub const MODERN: &str = "2026-07-28";

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub fn fresh_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// Somebody who calls one route.
#[derive(Clone, Debug)]
pub struct Caller {
    pub address: SocketAddr,
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Caller {
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Self { address, path: path.to_owned(), headers: Vec::new() }
    }

    /// Sends this header with every request.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    /// A request with `Host` and the caller's headers.
    pub fn request(&self, method: &str) -> Request {
        let request = Request::new(method, &self.path).with("Host", &self.address.to_string());
        self.headers.iter().fold(request, |request, (name, value)| request.with(name, value))
    }

    /// A POST of a message as legacy clients send it.
    pub fn post(&self, message: &Value) -> Request {
        self.request("POST")
            .with("Content-Type", "application/json")
            .with("Accept", "application/json, text/event-stream")
            .body(message.to_string())
    }

    /// A modern request with its headers and `_meta`.
    pub fn modern(&self, method: &str, params: Value) -> Request {
        let request = self
            .post(&modern_body(method, params.clone()))
            .with("MCP-Protocol-Version", MODERN)
            .with("Mcp-Method", method);
        let name = match method {
            "tools/call" | "prompts/get" => params["name"].as_str(),
            "resources/read" => params["uri"].as_str(),
            m if m.starts_with("tasks/") => params["taskId"].as_str(),
            _ => None,
        };
        match name {
            Some(name) => request.with("Mcp-Name", name),
            None => request,
        }
    }

    /// A modern `tools/call`.
    pub fn tool(&self, name: &str) -> Request {
        self.modern("tools/call", json!({ "name": name, "arguments": {} }))
    }

    /// Sends on a connection of its own and reads the whole response.
    pub async fn ask(&self, request: &Request) -> Response {
        Client::connect(self.address).await.ask(request).await
    }

    /// Sends on a connection of its own.
    pub async fn open(&self, request: &Request) -> Client {
        let mut client = Client::connect(self.address).await;
        client.send(request.bytes()).await;
        client
    }

    /// Sends on a connection of its own and reads the response's header.
    pub async fn stream(&self, request: &Request) -> (Client, Head) {
        let mut client = self.open(request).await;
        let head = client.head().await;
        (client, head)
    }

    pub fn initialize_request(&self) -> Request {
        let params = json!({
            "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": { "name": "it", "version": "1" },
        });
        self.post(&json!({ "jsonrpc": "2.0", "id": fresh_id(), "method": "initialize", "params": params }))
    }

    /// Opens a legacy session.
    pub async fn initialize(&self) -> Session {
        let response = self.ask(&self.initialize_request()).await;
        assert_eq!(response.status(), 200, "initialize: {}", response.text());
        let id = response.header("mcp-session-id").expect("initialize gives a session id").to_owned();
        Session { caller: self.clone(), id }
    }
}

/// A legacy session.
#[derive(Clone, Debug)]
pub struct Session {
    pub caller: Caller,
    pub id: String,
}

impl Session {
    /// The same session, spoken to somebody else.
    pub fn moved_to(&self, address: SocketAddr) -> Self {
        Self { caller: Caller { address, ..self.caller.clone() }, id: self.id.clone() }
    }

    /// A POST within the session.
    pub fn post(&self, message: &Value) -> Request {
        self.caller.post(message).with("Mcp-Session-Id", &self.id).with("MCP-Protocol-Version", LEGACY)
    }

    pub fn call(&self, method: &str, params: Value) -> Request {
        self.post(&json!({ "jsonrpc": "2.0", "id": fresh_id(), "method": method, "params": params }))
    }

    pub fn tool(&self, name: &str) -> Request {
        self.call("tools/call", json!({ "name": name, "arguments": {} }))
    }

    /// GET, for the server's own messages.
    pub fn get(&self) -> Request {
        self.caller
            .request("GET")
            .with("Accept", "text/event-stream")
            .with("Mcp-Session-Id", &self.id)
            .with("MCP-Protocol-Version", LEGACY)
    }

    pub fn delete(&self) -> Request {
        self.caller.request("DELETE").with("Mcp-Session-Id", &self.id).with("MCP-Protocol-Version", LEGACY)
    }

    pub async fn ask(&self, request: &Request) -> Response {
        self.caller.ask(request).await
    }
}

/// A modern message with what its `_meta` must have.
pub fn modern_body(method: &str, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({ "jsonrpc": "2.0", "id": fresh_id(), "method": method, "params": params })
}
