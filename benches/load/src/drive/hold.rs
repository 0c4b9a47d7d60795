//! Holds many streams open and looks at every notification that comes on them.
//!
//! One thread and no buffer per stream: what is measured is what the proxy holds, not what we do.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::LocalSet;

use super::{Latency, histogram};
use crate::Result;
use crate::client::{Endpoint, Request, now_ns, number_after};
use crate::http::{self, Chunks, Framing, ResponseHead};

/// Streams that are being opened at the same time.
const OPENING: usize = 32;
/// How long opening one may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kinds of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// GET in a session of its own.
    Get,
    /// `subscriptions/listen`, without a session.
    Listen,
}

/// How to hold streams.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Who is dialled.
    #[arg(long)]
    pub target: SocketAddr,
    /// Path of the MCP endpoint.
    #[arg(long, default_value = "/mcp")]
    pub path: String,
    /// Bearer token.
    #[arg(long)]
    pub token: Option<String>,
    /// Which streams.
    #[arg(long, value_enum, default_value = "get")]
    pub kind: Kind,
    /// How many.
    #[arg(long, default_value_t = 100)]
    pub streams: usize,
}

/// What came of the streams. Printed when all are open, and again on each line that is read from stdin.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub struct Held {
    /// Open now.
    pub open: u64,
    /// Could not be opened.
    pub refused: u64,
    /// Ended though they should not.
    pub dropped: u64,
    /// Notifications received.
    pub received: u64,
    /// Notifications that are missing between two that came, or came twice.
    pub missing: u64,
    /// Streams that have received at least one.
    pub heard: u64,
    /// Microseconds from the server's clock reading to ours.
    pub delivery: Latency,
    /// What went wrong first.
    pub first_error: Option<String>,
}

struct Shared {
    held: Held,
    delivery: Histogram<u64>,
}

type State = Rc<RefCell<Shared>>;

/// Opens the streams, prints a line of JSON, and another one for every line on stdin; `reset` there forgets the delivery
/// times so far. Ends with stdin.
///
/// # Errors
/// The streams cannot be held; single ones that fail are counted instead.
pub fn hold(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(options))
}

async fn run(options: &Options) -> Result<()> {
    let state = Rc::new(RefCell::new(Shared { held: Held::default(), delivery: histogram()? }));
    let opening = Arc::new(Semaphore::new(OPENING));
    let (stop, stopped) = watch::channel(false);
    let endpoint =
        Endpoint { address: options.target, path: options.path.clone(), token: options.token.clone() };
    let kind = options.kind;
    for _ in 0..options.streams {
        let permit = opening.clone().acquire_owned().await?;
        let (state, endpoint, mut stopped) = (state.clone(), endpoint.clone(), stopped.clone());
        tokio::task::spawn_local(async move {
            let opened = tokio::time::timeout(PATIENCE, open(&endpoint, kind)).await;
            drop(permit);
            let (stream, reader) = match opened.map_err(Into::into).and_then(|opened| opened) {
                Ok(opened) => opened,
                Err(error) => {
                    let held = &mut state.borrow_mut().held;
                    held.refused += 1;
                    held.first_error.get_or_insert_with(|| format!("opening: {error}"));
                    return;
                }
            };
            state.borrow_mut().held.open += 1;
            let ended = tokio::select! {
                ended = listen(&stream, reader, &state) => ended,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            let held = &mut state.borrow_mut().held;
            held.open -= 1;
            held.dropped += 1;
            let why = ended.err().map_or_else(|| "a proper end".to_owned(), |e| e.to_string());
            held.first_error.get_or_insert_with(|| format!("dropped: {why}"));
        });
    }
    let _all = opening.acquire_many(OPENING as u32).await?;
    // The last to get its permit has yet to be counted.
    tokio::time::sleep(Duration::from_millis(10)).await;
    report(&state);
    let mut lines = tokio::sync::mpsc::channel::<String>(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::io::Result::ok) {
            if lines.0.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.1.recv().await {
        report(&state);
        if line == "reset" {
            state.borrow_mut().delivery.reset();
        }
    }
    let _ = stop.send(true);
    Ok(())
}

fn report(state: &State) {
    let mut state = state.borrow_mut();
    state.held.delivery = Latency::of(&state.delivery);
    println!("{}", serde_json::to_string(&state.held).unwrap_or_default());
}

/// What of a stream has been read and not looked at.
struct Reader {
    chunks: Chunks,
    /// Decoded, up to the end of the last whole event.
    pending: Vec<u8>,
}

async fn open(endpoint: &Endpoint, kind: Kind) -> Result<(TcpStream, Reader)> {
    let mut stream = TcpStream::connect(endpoint.address).await?;
    stream.set_nodelay(true)?;
    let mut request = match kind {
        Kind::Get => {
            let answer = exchange(&mut stream, &mut endpoint.initialize(), 200).await?;
            let session = answer.session.ok_or("no session id")?;
            exchange(&mut stream, &mut endpoint.initialized(&session), 202).await?;
            endpoint.stream(&session)
        }
        Kind::Listen => endpoint.listen(),
    };
    stream.write_all(request.advance()).await?;
    let mut received = Vec::new();
    let (head, at) = read_head(&stream, &mut received).await?;
    if head.status != 200 || !head.events || head.framing != Framing::Chunked {
        return Err(format!("{} with {}", head.status, String::from_utf8_lossy(&received[at..])).into());
    }
    let mut reader = Reader { chunks: Chunks::default(), pending: Vec::new() };
    reader.chunks.feed(&received[at..], &mut reader.pending)?;
    Ok((stream, reader))
}

async fn exchange(stream: &mut TcpStream, request: &mut Request, expect: u16) -> Result<ResponseHead> {
    stream.write_all(request.advance()).await?;
    let mut received = Vec::new();
    let (head, at) = read_head(stream, &mut received).await?;
    let Framing::Length(length) = head.framing else { return Err("a chunked answer to a handshake".into()) };
    while received.len() < at + length {
        fill(stream, &mut received).await?;
    }
    if head.status == expect {
        Ok(head)
    } else {
        Err(format!("{} in place of {expect}: {}", head.status, String::from_utf8_lossy(&received[at..]))
            .into())
    }
}

async fn read_head(stream: &TcpStream, received: &mut Vec<u8>) -> Result<(ResponseHead, usize)> {
    loop {
        fill(stream, received).await?;
        if let Some(found) = http::response(received)? {
            return Ok(found);
        }
    }
}

async fn fill(stream: &TcpStream, received: &mut Vec<u8>) -> Result<()> {
    loop {
        stream.readable().await?;
        let mut scratch = [0u8; 4096];
        match stream.try_read(&mut scratch) {
            Ok(0) => return Err("closed".into()),
            Ok(n) => {
                received.extend_from_slice(&scratch[..n]);
                return Ok(());
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Reads until the stream ends.
async fn listen(stream: &TcpStream, mut reader: Reader, state: &State) -> Result<()> {
    let mut last = 0;
    let mut received = Vec::new();
    loop {
        while let Some(end) = memchr::memmem::find(&reader.pending, b"\n\n") {
            note(&reader.pending[..end], &mut last, &mut state.borrow_mut());
            reader.pending.drain(..end + 2);
        }
        if reader.pending.is_empty() {
            reader.pending = Vec::new();
        }
        if reader.chunks.done() {
            return Ok(());
        }
        fill(stream, &mut received).await?;
        reader.chunks.feed(&received, &mut reader.pending)?;
        received = Vec::new();
    }
}

fn note(event: &[u8], last: &mut u64, state: &mut Shared) {
    // Comments keep the connection alive and say nothing.
    let (Some(number), Some(at)) = (number_after(event, "\"n\":"), number_after(event, "\"at\":")) else {
        return;
    };
    state.held.received += 1;
    state.held.heard += u64::from(*last == 0);
    state.held.missing += number.abs_diff(*last + 1);
    *last = number;
    state.delivery.saturating_record(now_ns().saturating_sub(at));
}
