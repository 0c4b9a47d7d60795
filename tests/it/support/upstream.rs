//! A scripted MCP server on a raw socket. It records what it received, byte for byte, and answers as it is told.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::http::{Io, find};
use super::mcp::{LEGACY, MODERN};
use super::within;

/// What the server speaks where its script says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    Dual,
    Legacy,
    Modern,
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// The test answers, or nobody.
    Later,
    /// These bytes and nothing else, then the connection closes.
    Raw(Vec<u8>),
    Reset,
    /// Chunked; the test sends the pieces.
    Stream,
    Whole(Vec<u8>),
}

impl Reply {
    fn new(status: u16, body: Body) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub fn json(value: &Value) -> Self {
        Self::new(200, Body::Whole(value.to_string().into())).header("Content-Type", "application/json")
    }

    /// A JSON-RPC result.
    pub fn result(call: &Call, result: &Value) -> Self {
        Self::json(&json!({ "jsonrpc": "2.0", "id": call.message()["id"], "result": result }))
    }

    pub fn error(status: u16, call: &Call, code: i64, message: &str) -> Self {
        let error = json!({ "code": code, "message": message });
        let mut reply = Self::json(&json!({ "jsonrpc": "2.0", "id": call.message()["id"], "error": error }));
        reply.status = status;
        reply
    }

    /// No body.
    pub fn status(status: u16) -> Self {
        Self::new(status, Body::Whole(Vec::new()))
    }

    pub fn body(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, Body::Whole(body.into())).header("Content-Type", kind)
    }

    /// An event stream that the test feeds through [`Call::send`] and [`Call::end`].
    pub fn stream() -> Self {
        Self::new(200, Body::Stream).header("Content-Type", "text/event-stream")
    }

    /// Answered by [`Call::answer`], or never.
    pub fn later() -> Self {
        Self::new(0, Body::Later)
    }

    /// The connection is reset.
    pub fn reset() -> Self {
        Self::new(0, Body::Reset)
    }

    /// Exactly these bytes; then the connection closes.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(0, Body::Raw(bytes.into()))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts another content type in place.
    pub fn kind(mut self, kind: &str) -> Self {
        self.headers.retain(|(name, _)| name != "Content-Type");
        self.header("Content-Type", kind)
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} X\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.body {
            Body::Stream => head.push_str("Transfer-Encoding: chunked\r\n"),
            Body::Whole(_) if self.status == 204 => {}
            Body::Whole(body) => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
            _ => {}
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

enum Order {
    Answer(Reply),
    End,
    Reset,
    Send(Vec<u8>),
}

/// One request that the server received, and the line to whoever answers it.
pub struct Call {
    /// `POST /mcp HTTP/1.1`.
    pub line: String,
    /// As they came, in their order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    orders: mpsc::UnboundedSender<Order>,
    gone: watch::Sender<Option<Instant>>,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn message(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// GET, POST or DELETE.
    pub fn verb(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// The JSON-RPC method.
    pub fn method(&self) -> String {
        self.message()["method"].as_str().unwrap_or_default().to_owned()
    }

    fn is_probe(&self) -> bool {
        self.header("user-agent").is_some_and(|agent| agent.starts_with("tollgate/"))
    }

    /// Sends a piece of the stream.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let _ = self.orders.send(Order::Send(bytes.as_ref().to_vec()));
    }

    /// Sends a message as an event.
    pub fn event(&self, message: &Value) {
        self.send(format!("event: message\ndata: {message}\n\n"));
    }

    /// Ends the stream properly.
    pub fn end(&self) {
        let _ = self.orders.send(Order::End);
    }

    /// Answers what was put off with [`Reply::later`].
    pub fn answer(&self, reply: Reply) {
        let _ = self.orders.send(Order::Answer(reply));
    }

    /// Resets the connection.
    pub fn reset(&self) {
        let _ = self.orders.send(Order::Reset);
    }

    /// When the gateway gave up on it; `None` as long as it has not.
    pub fn gone_at(&self) -> Option<Instant> {
        *self.gone.borrow()
    }

    /// Waits until the gateway gives up on it.
    pub async fn gone(&self) -> Instant {
        let mut gone = self.gone.subscribe();
        let wait = async { *gone.wait_for(Option::is_some).await.expect("the sender is ours") };
        within("the end of a request to the server", wait).await.expect("it was waited for")
    }
}

type Script = dyn Fn(&Call) -> Option<Reply> + Send + Sync;

struct Shared {
    name: String,
    era: Era,
    script: Box<Script>,
    tls: Option<TlsAcceptor>,
    calls: Mutex<Vec<Arc<Call>>>,
    arrived: Notify,
    sessions: Mutex<HashSet<String>>,
    next_session: AtomicUsize,
    connections: AtomicUsize,
    kill: watch::Sender<u64>,
    /// Connections that are open.
    open: watch::Sender<usize>,
}

/// The server. Dropping it ends it.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<tokio::task::JoinHandle<()>>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.end();
    }
}

impl Upstream {
    pub async fn legacy() -> Self {
        Self::scripted(Era::Legacy, |_| None).await
    }

    pub async fn modern() -> Self {
        Self::scripted(Era::Modern, |_| None).await
    }

    /// What `script` does not answer is answered as usual for the era.
    pub async fn scripted(era: Era, script: impl Fn(&Call) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::start("up", era, None, script).await
    }

    /// A server that names itself in the answers of its tools.
    pub async fn named(name: &str, era: Era) -> Self {
        Self::start(name, era, None, |_| None).await
    }

    pub async fn start(
        name: &str,
        era: Era,
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(&Call) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            era,
            script: Box::new(script),
            tls: tls.map(TlsAcceptor::from),
            calls: Mutex::new(Vec::new()),
            arrived: Notify::new(),
            sessions: Mutex::new(HashSet::new()),
            next_session: AtomicUsize::new(1),
            connections: AtomicUsize::new(0),
            kill: watch::Sender::new(0),
            open: watch::Sender::new(0),
        });
        let address = listener.local_addr().expect("a bound socket has an address");
        let accepting = Mutex::new(tokio::spawn(accept(listener, shared.clone())));
        Self { address, shared, accepting }
    }

    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/mcp", self.address)
    }

    /// What clients of the gateway asked; its own probes are left out.
    pub fn calls(&self) -> Vec<Arc<Call>> {
        self.shared.calls.lock().iter().filter(|c| !c.is_probe()).cloned().collect()
    }

    /// Everything, probes too.
    pub fn everything(&self) -> Vec<Arc<Call>> {
        self.shared.calls.lock().clone()
    }

    /// How many requests of this JSON-RPC method came from clients.
    pub fn count(&self, method: &str) -> usize {
        self.calls().iter().filter(|c| c.method() == method).count()
    }

    /// The first request of this JSON-RPC method, or of this HTTP method; waits for it.
    pub async fn call(&self, method: &str) -> Arc<Call> {
        self.nth(method, 0).await
    }

    pub async fn nth(&self, method: &str, n: usize) -> Arc<Call> {
        within(&format!("{method} at the server"), async {
            loop {
                let arrived = self.shared.arrived.notified();
                let found =
                    self.calls().into_iter().filter(|c| c.method() == method || c.verb() == method).nth(n);
                if let Some(call) = found {
                    return call;
                }
                arrived.await;
            }
        })
        .await
    }

    /// Forgets its sessions, as a process that started again would.
    pub fn forget_sessions(&self) {
        self.shared.sessions.lock().clear();
    }

    /// As `kill -9` and its kernel would: nobody listens, every connection is reset. Returns when that is so.
    pub async fn kill(&self) {
        self.end();
        let mut open = self.shared.open.subscribe();
        let ended = async {
            while !self.accepting.lock().is_finished() {
                tokio::task::yield_now().await;
            }
            open.wait_for(|open| *open == 0).await.expect("the sender is ours");
        };
        within("the end of a server", ended).await;
    }

    fn end(&self) {
        self.accepting.lock().abort();
        self.shared.kill.send_modify(|n| *n += 1);
    }

    /// Listens again where it did before.
    pub async fn revive(&self) {
        let listener = within("the port", async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await;
        *self.accepting.lock() = tokio::spawn(accept(listener, self.shared.clone()));
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
        // Counted from here on: a kill must not miss it because its task has not run yet.
        let killed = shared.kill.subscribe();
        tokio::spawn(serve(socket, connection, Counted::new(shared.clone()), killed));
    }
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Closed,
    Reset,
}

/// Counts a connection for as long as its socket is open.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        shared.open.send_modify(|n| *n += 1);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.send_modify(|n| *n -= 1);
    }
}

/// `counted` goes last, after the socket.
async fn serve(socket: TcpStream, connection: usize, counted: Counted, mut killed: watch::Receiver<u64>) {
    let shared = &counted.0;
    let Ok(socket) = socket.into_std() else { return };
    // A second handle of the same socket: a TLS stream does not let its own be reached.
    let (Ok(handle), Ok(socket)) = (socket.try_clone(), TcpStream::from_std(socket)) else { return };
    let _ = socket.set_nodelay(true);
    let exchange = async {
        match &shared.tls {
            None => Connection::new(socket, connection, shared).run().await,
            Some(tls) => match tls.accept(socket).await {
                Ok(stream) => Connection::new(stream, connection, shared).run().await,
                Err(_) => Ended::Closed,
            },
        }
    };
    let reset = || socket2::SockRef::from(&handle).set_linger(Some(Duration::ZERO));
    // Armed before the socket is dropped: what comes after is a FIN.
    let watched = async {
        if exchange.await == Ended::Reset {
            let _ = reset();
        }
    };
    tokio::select! {
        _ = killed.changed() => { let _ = reset(); }
        () = watched => {}
    }
}

struct Connection<'s, S> {
    io: S,
    received: Vec<u8>,
    number: usize,
    shared: &'s Arc<Shared>,
}

impl<'s, S: Io> Connection<'s, S> {
    fn new(io: S, number: usize, shared: &'s Arc<Shared>) -> Self {
        Self { io, received: Vec::new(), number, shared }
    }

    async fn run(mut self) -> Ended {
        while let Some((call, mut orders)) = self.next().await {
            let call = Arc::new(call);
            self.shared.calls.lock().push(call.clone());
            self.shared.arrived.notify_waiters();
            let reply = (self.shared.script)(&call).unwrap_or_else(|| self.shared.usual(&call));
            if let Err(ended) = self.reply(reply, &mut orders).await {
                call.gone.send_replace(Some(Instant::now()));
                return ended;
            }
        }
        Ended::Closed
    }

    /// `Err`: the connection is over.
    async fn reply(
        &mut self,
        reply: Reply,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> Result<(), Ended> {
        let mut reply = reply;
        if matches!(reply.body, Body::Later) {
            reply = loop {
                match self.or_gone(orders.recv()).await? {
                    Some(Order::Answer(reply)) => break reply,
                    Some(Order::Reset) => return Err(Ended::Reset),
                    Some(_) => {}
                    None => return Err(Ended::Closed),
                }
            };
        }
        match &reply.body {
            Body::Later => return Err(Ended::Closed),
            Body::Raw(bytes) => {
                self.write(bytes).await?;
                return Err(Ended::Closed);
            }
            Body::Reset => return Err(Ended::Reset),
            Body::Whole(body) => {
                let mut out = reply.head();
                out.extend_from_slice(body);
                return self.write(&out).await;
            }
            Body::Stream => self.write(&reply.head()).await?,
        }
        loop {
            match self.or_gone(orders.recv()).await? {
                Some(Order::Send(bytes)) => {
                    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                    chunk.extend_from_slice(&bytes);
                    chunk.extend_from_slice(b"\r\n");
                    self.write(&chunk).await?;
                }
                Some(Order::End) => return self.write(b"0\r\n\r\n").await,
                Some(Order::Reset) => return Err(Ended::Reset),
                Some(Order::Answer(_)) => {}
                None => return Err(Ended::Closed),
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let write = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        write.await.map_err(|_: std::io::Error| Ended::Closed)
    }

    /// Waits for something, and for the other side to go.
    async fn or_gone<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::pin!(wait);
        loop {
            tokio::select! {
                biased;
                done = &mut wait => return Ok(done),
                read = self.io.read_buf(&mut self.received) => if !matches!(read, Ok(n) if n > 0) {
                    return Err(Ended::Closed);
                },
            }
        }
    }

    async fn next(&mut self) -> Option<(Call, mpsc::UnboundedReceiver<Order>)> {
        loop {
            if let Some(call) = self.parse() {
                return Some(call);
            }
            self.received.reserve(16 * 1024);
            if !matches!(self.io.read_buf(&mut self.received).await, Ok(n) if n > 0) {
                return None;
            }
        }
    }

    fn parse(&mut self) -> Option<(Call, mpsc::UnboundedReceiver<Order>)> {
        let end = find(&self.received, b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&self.received[..end]).into_owned();
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
        let length = length.map_or(0, |(_, v)| v.parse().expect("a length"));
        if self.received.len() < end + 4 + length {
            return None;
        }
        let body = self.received[end + 4..end + 4 + length].to_vec();
        self.received.drain(..end + 4 + length);
        let (orders, receiver) = mpsc::unbounded_channel();
        let gone = watch::Sender::new(None);
        Some((Call { line, headers, body, connection: self.number, orders, gone }, receiver))
    }
}

impl Shared {
    /// What a decent server of its era answers.
    fn usual(&self, call: &Call) -> Reply {
        let message = call.message();
        let method = message["method"].as_str().unwrap_or_default();
        let is_modern = call.header("mcp-protocol-version").is_some_and(|v| v >= MODERN);
        match (is_modern, self.era) {
            (true, Era::Dual | Era::Modern) => self.modern(call, method),
            (false, Era::Dual | Era::Legacy) => self.legacy(call, method),
            _ => Reply::error(400, call, -32600, "not in this era"),
        }
    }

    fn legacy(&self, call: &Call, method: &str) -> Reply {
        let session = call.header("mcp-session-id");
        if method == "initialize" {
            let id = format!("{}-{}", self.name, self.next_session.fetch_add(1, Ordering::Relaxed));
            self.sessions.lock().insert(id.clone());
            let result = json!({
                "protocolVersion": LEGACY, "capabilities": { "tools": {} },
                "serverInfo": { "name": self.name, "version": "1" },
            });
            return Reply::result(call, &result).header("Mcp-Session-Id", &id);
        }
        if !session.is_some_and(|id| self.sessions.lock().contains(id)) {
            return Reply::error(404, call, -32001, "Session not found");
        }
        match (call.verb(), method) {
            ("GET", _) => Reply::stream(),
            ("DELETE", _) => {
                self.sessions.lock().remove(session.unwrap_or_default());
                Reply::status(200)
            }
            _ => self.common(call, method),
        }
    }

    fn modern(&self, call: &Call, method: &str) -> Reply {
        match method {
            "server/discover" => Reply::result(call, &self.discovery()),
            "subscriptions/listen" => Reply::stream(),
            _ => self.common(call, method),
        }
    }

    /// The answer to `server/discover`.
    fn discovery(&self) -> Value {
        let versions = if self.era == Era::Dual { vec![MODERN, LEGACY] } else { vec![MODERN] };
        json!({
            "resultType": "complete", "supportedVersions": versions, "capabilities": { "tools": {} },
            "serverInfo": { "name": self.name, "version": "1" }, "ttlMs": 60_000, "cacheScope": "public",
        })
    }

    fn common(&self, call: &Call, method: &str) -> Reply {
        let message = call.message();
        if message["id"].is_null() || method.is_empty() {
            return Reply::status(202);
        }
        match method {
            "ping" => Reply::result(call, &json!({})),
            "tools/list" => {
                let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
                let tools = [tool("get_time"), tool("write_file"), tool("delete_all")];
                let result = json!({ "resultType": "complete", "tools": tools, "ttlMs": 5000, "cacheScope": "public" });
                Reply::result(call, &result)
            }
            "prompts/list" => {
                Reply::result(call, &json!({ "prompts": [{ "name": "greet" }, { "name": "secret" }] }))
            }
            "tools/call" => {
                let text = json!([{ "type": "text", "text": self.name }]);
                Reply::result(call, &json!({ "resultType": "complete", "content": text }))
            }
            _ => Reply::error(200, call, -32601, "Method not found"),
        }
    }
}
