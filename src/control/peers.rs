//! Asking the other replicas: one request to each, side by side, and one answer put together from theirs.
//!
//! A replica that does not answer in time is named in the answer and left out; it never holds the others up. How many
//! are asked at once, how long each may take and how much it may say is bounded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;

use super::internal::{Health, Listing, SessionView, StreamView, TombstoneView, TrafficView};
use super::state::ServerStatus;

/// Replicas asked at the same time.
const AT_ONCE: usize = 16;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of one answer.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Replicas that a client is kept for.
const MAX_CLIENTS: usize = 1_024;

/// Where a replica's internal listener is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// The process.
    pub boot: String,
    /// The replica: stays the same over restarts.
    pub replica: String,
    /// Host and port.
    pub address: String,
}

/// What replicas answered.
#[derive(Clone, Debug)]
pub struct Answers<T> {
    /// Who answered, and what.
    pub answers: Vec<(Peer, T)>,
    /// Who did not, and why.
    pub missing: Vec<(Peer, String)>,
}

/// The certificate and authorities cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("listeners.internal.tls: {0}")]
pub struct PeerTlsError(String);

/// Asks other replicas. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    tls: ClientConfig,
    /// The name in replicas' certificates; their address if there is none.
    name: Option<String>,
    /// By address and what it resolves to. A client keeps connections open.
    clients: Mutex<HashMap<String, reqwest::Client>>,
}

impl Peers {
    /// A client that shows `cert` and trusts `ca` only (PEM). With `name`, all replicas' certificates are for that name;
    /// otherwise each must be for the address it is dialled by.
    ///
    /// # Errors
    /// Something of it does not parse or fit together.
    pub fn new(cert: &[u8], key: &[u8], ca: &[u8], name: Option<String>) -> Result<Self, PeerTlsError> {
        let wrong = |e: &dyn std::fmt::Display| PeerTlsError(e.to_string());
        let chain =
            CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>().map_err(|e| wrong(&e))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong(&e))?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(ca) {
            roots.add(authority.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| wrong(&e))?;
        Ok(Self(Arc::new(Inner { tls, name, clients: Mutex::default() })))
    }

    /// Whether replicas answer.
    pub async fn health(&self, peers: &[Peer]) -> Answers<Health> {
        self.ask(peers, reqwest::Method::GET, "health".to_owned(), None).await
    }

    /// Servers, of one tenant or all of them, as each sees them.
    pub async fn servers(&self, peers: &[Peer], tenant: Option<&str>) -> Answers<Vec<ServerStatus>> {
        let listing = Listing { tenant: tenant.map(str::to_owned), ..Listing::default() };
        self.ask(peers, reqwest::Method::GET, format!("servers?{}", query(&listing)), None).await
    }

    /// What tenants' requests come to at each of them.
    pub async fn traffic(&self, peers: &[Peer]) -> Answers<Vec<TrafficView>> {
        self.ask(peers, reqwest::Method::GET, "traffic".to_owned(), None).await
    }

    /// Sessions of all of them.
    pub async fn sessions(&self, peers: &[Peer], listing: &Listing) -> Answers<Vec<SessionView>> {
        self.ask(peers, reqwest::Method::GET, format!("sessions?{}", query(listing)), None).await
    }

    /// Streams of all of them.
    pub async fn streams(&self, peers: &[Peer], listing: &Listing) -> Answers<Vec<StreamView>> {
        self.ask(peers, reqwest::Method::GET, format!("streams?{}", query(listing)), None).await
    }

    /// Ends a session wherever it is, and has every replica remember that. The replicas where it was.
    pub async fn close_session(
        &self,
        peers: &[Peer],
        tenant: &str,
        serial: &str,
    ) -> Answers<Option<TombstoneView>> {
        let path = format!("sessions/{}/{}", encode(tenant), encode(serial));
        let closed: Answers<Option<TombstoneView>> =
            self.ask(peers, reqwest::Method::DELETE, path, None).await;
        if let Some(tombstone) = closed.answers.iter().find_map(|(_, t)| t.clone()) {
            self.bury(peers, &[tombstone]).await;
        }
        closed
    }

    /// Ends a stream of one replica; whether it was there.
    pub async fn close_stream(&self, peer: &Peer, tenant: &str, id: u64) -> Answers<bool> {
        let path = format!("streams/{}/{id}", encode(tenant));
        let closed: Answers<Option<()>> =
            self.ask(std::slice::from_ref(peer), reqwest::Method::DELETE, path, None).await;
        let answers = closed.answers.into_iter().map(|(peer, found)| (peer, found.is_some())).collect();
        Answers { answers, missing: closed.missing }
    }

    /// Has replicas remember that sessions have ended.
    pub async fn bury(&self, peers: &[Peer], tombstones: &[TombstoneView]) -> Answers<Option<()>> {
        let body = serde_json::to_vec(tombstones).unwrap_or_default();
        self.ask(peers, reqwest::Method::POST, "tombstones".to_owned(), Some(body)).await
    }

    async fn ask<T: FromAnswer>(
        &self,
        peers: &[Peer],
        method: reqwest::Method,
        path: String,
        body: Option<Vec<u8>>,
    ) -> Answers<T> {
        let asked = peers.iter().cloned().map(|peer| {
            let (method, path, body) = (method.clone(), path.clone(), body.clone());
            async move {
                let answer = tokio::time::timeout(PATIENCE, self.ask_one(&peer, method, &path, body)).await;
                (peer, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())))
            }
        });
        let mut all = Answers { answers: Vec::new(), missing: Vec::new() };
        let mut asked = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((peer, answer)) = asked.next().await {
            match answer.and_then(|(status, bytes)| T::from_answer(status, &bytes)) {
                Ok(answer) => all.answers.push((peer, answer)),
                Err(why) => all.missing.push((peer, why)),
            }
        }
        all.answers.sort_by(|a, b| a.0.cmp(&b.0));
        all.missing.sort();
        all
    }

    async fn ask_one(
        &self,
        peer: &Peer,
        method: reqwest::Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(u16, Vec<u8>), String> {
        let (client, authority) = self.client(&peer.address).await?;
        let mut request = client.request(method, format!("https://{authority}/internal/v1/{path}"));
        if let Some(body) = body {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(|e| in_full(&e))?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| in_full(&e))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(format!("the answer is over {MAX_ANSWER} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok((response.status().as_u16(), bytes))
    }

    /// A client for an address, and what to dial with it.
    async fn client(&self, address: &str) -> Result<(reqwest::Client, String), String> {
        let Some(name) = &self.0.name else {
            return Ok((self.kept(address.to_owned(), None)?, address.to_owned()));
        };
        // The certificates are for that name, and the replica is where its own address says.
        let unknown = |e: std::io::Error| format!("cannot resolve {address}: {e}");
        let mut at: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(unknown)?.collect();
        at.sort();
        let port = address.rsplit_once(':').map_or("443", |(_, port)| port);
        // A host name that moves to other addresses gets another client.
        let client = self.kept(format!("{address} {at:?}"), Some((name, &at)))?;
        Ok((client, format!("{name}:{port}")))
    }

    fn kept(&self, key: String, dialled: Option<(&str, &[SocketAddr])>) -> Result<reqwest::Client, String> {
        let mut clients = self.0.clients.lock();
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.0.tls.clone())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .https_only(true)
            .pool_max_idle_per_host(2)
            .connect_timeout(PATIENCE);
        if let Some((name, at)) = dialled {
            builder = builder.resolve_to_addrs(name, at);
        }
        let client = builder.build().map_err(|e| in_full(&e))?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// What a status and a body mean.
trait FromAnswer: Sized {
    fn from_answer(status: u16, body: &[u8]) -> Result<Self, String>;
}

macro_rules! from_json {
    ($($type:ty),*) => {$(
        impl FromAnswer for $type {
            fn from_answer(status: u16, body: &[u8]) -> Result<Self, String> {
                if status == 200 { json(body) } else { Err(format!("answered with status {status}")) }
            }
        }
    )*};
}
from_json!(Health, Vec<ServerStatus>, Vec<SessionView>, Vec<StreamView>, Vec<TrafficView>);

impl FromAnswer for Option<TombstoneView> {
    fn from_answer(status: u16, body: &[u8]) -> Result<Self, String> {
        match status {
            200 => json(body).map(Some),
            404 => Ok(None),
            _ => Err(format!("answered with status {status}")),
        }
    }
}

impl FromAnswer for Option<()> {
    fn from_answer(status: u16, _body: &[u8]) -> Result<Self, String> {
        match status {
            204 => Ok(Some(())),
            404 => Ok(None),
            _ => Err(format!("answered with status {status}")),
        }
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| format!("the answer is not what was asked for: {e}"))
}

/// An error with its causes: the last one says what went wrong.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn query(listing: &Listing) -> String {
    let pairs = [
        ("tenant", listing.tenant.clone()),
        ("principal", listing.principal.clone()),
        ("after", listing.after.clone()),
        ("limit", listing.limit.map(|n| n.to_string())),
    ];
    let pairs = pairs.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", encode(&value?))));
    pairs.collect::<Vec<_>>().join("&")
}

/// Percent-encoding of everything that is not plain.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
