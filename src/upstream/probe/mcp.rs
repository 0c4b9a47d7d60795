//! Speaking MCP to find out what a target speaks (MCP.md §2.1 to §2.5).
//!
//! Modern targets answer `server/discover`; the answer is also the catalogue entry. Legacy targets are asked `ping` in
//! a session that is kept. With an `auto` hint the modern question comes first:
//!
//! | answer to `server/discover` | conclusion |
//! |---|---|
//! | result that names a modern revision, or error -32020 / -32021 | modern |
//! | other JSON-RPC error, other 4xx, anything that is no JSON-RPC | not modern: try `initialize` |
//! | 401, 403, 407, 429, 5xx, no answer | nothing: keep what is known |
//!
//! "Not modern" replaces an earlier "modern" only once `initialize` has worked, so that an error page in front of a
//! server does not change its era. A modern target that does not list legacy revisions is asked `initialize` once, and
//! that session is closed at once. The era is asked about again when a session is lost, when the target was unhealthy,
//! and every [`RECHECK`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pingora::connectors::http::Connector;
use serde::Deserialize;
use serde_json::json;

use crate::base::Clock;
use crate::upstream::era::{DiscoverEntry, FIRST_MODERN, Findings, LATEST_LEGACY, is_modern};
use crate::upstream::outlier::nanos;
use crate::upstream::probe::ProbeError;
use crate::upstream::probe::exchange::{self, Answer, Request};
use crate::upstream::probe::message::Reply;
use crate::upstream::spec::EraHint;
use crate::upstream::target::{Endpoint, Member};

/// How often a target known to be legacy is asked whether it still is.
const RECHECK: Duration = Duration::from_secs(600);
/// First wait after an `initialize` whose end is not known; doubles up to [`MAX_REOPEN_WAIT`].
const REOPEN_WAIT: Duration = Duration::from_secs(10);
const MAX_REOPEN_WAIT: Duration = Duration::from_secs(3600);

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// A target's one probe session.
#[derive(Debug, Default)]
pub(crate) struct ProbeSession {
    open: Option<Open>,
    /// Set while `initialize` is under way; found set, the last one was cut off.
    opening: bool,
    /// Attempts in a row whose end is not known.
    unknown_ends: u32,
    /// Clock reading before which no session is opened.
    not_before: u64,
    /// The target is no longer one of the server's: no session is opened any more.
    retired: bool,
}

#[derive(Debug)]
struct Open {
    endpoint: Arc<Endpoint>,
    /// Servers without sessions give none.
    id: Option<HeaderValue>,
    version: Arc<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    supported_versions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
}

enum Discovery {
    /// Modern; the entry is missing if the server answered with a modern error.
    Modern(Option<(Bytes, Vec<String>)>),
    NotModern,
}

enum Ping {
    Alive,
    Lost,
}

/// Finds out what a target speaks and offers, and that it is alive. Findings change only on success.
pub(crate) async fn examine(connector: &Connector, member: &Member, clock: &Clock) -> Result<(), ProbeError> {
    let stats = &member.stats;
    let mut session = stats.session.lock().await;
    // Read under the session's lock, so that two examinations do not overwrite each other.
    let mut findings = stats.findings.lock().clone();
    let mut target = Target { connector, endpoint: &member.endpoint, session: &mut session, clock };
    match member.spec().era {
        EraHint::Foreign => return Ok(()),
        EraHint::Legacy => target.stay_legacy(&mut findings).await?,
        EraHint::Modern => match target.discover().await? {
            Discovery::Modern(found) => target.note_modern(&mut findings, found),
            Discovery::NotModern => return Err(ProbeError::NoEra),
        },
        EraHint::Auto => {
            let now = clock.mono_ns();
            let due = findings.detected.is_none_or(|at| now.saturating_sub(at) >= nanos(RECHECK));
            let settled =
                !due && stats.healthy() && findings.modern == Some(false) && target.session.open.is_some();
            if !(settled && matches!(target.ping().await?, Ping::Alive)) {
                target.detect(&mut findings).await?;
                findings.detected = Some(clock.mono_ns());
            }
        }
    }
    findings.examined = Some(clock.mono_ns());
    *stats.findings.lock() = findings;
    Ok(())
}

struct Target<'a> {
    connector: &'a Connector,
    endpoint: &'a Arc<Endpoint>,
    session: &'a mut ProbeSession,
    clock: &'a Clock,
}

impl Target<'_> {
    async fn detect(&mut self, findings: &mut Findings) -> Result<(), ProbeError> {
        let before = findings.versions.clone();
        match self.discover().await? {
            Discovery::Modern(found) => {
                let was_modern = findings.modern == Some(true);
                self.note_modern(findings, found);
                if findings.versions.iter().any(|v| !is_modern(v)) {
                    findings.legacy = Some(true);
                } else if findings.legacy.is_none()
                    || !was_modern
                    || !same_modern(&before, &findings.versions)
                {
                    findings.legacy = self.try_legacy().await;
                }
                if findings.legacy == Some(true) && !findings.versions.iter().any(|v| !is_modern(v)) {
                    let all: Vec<_> =
                        findings.versions.iter().cloned().chain([LATEST_LEGACY.into()]).collect();
                    findings.set_versions(all.iter().map(|v| &**v));
                }
                // A target that turned modern needs no probe session any more.
                self.session.close(self.connector).await;
                Ok(())
            }
            Discovery::NotModern => match self.stay_legacy(findings).await {
                Err(e @ (ProbeError::Refused { .. } | ProbeError::Status(400..=499))) => {
                    tracing::debug!(event = "no_era", error = %e);
                    Err(ProbeError::NoEra)
                }
                other => other,
            },
        }
    }

    fn note_modern(&self, findings: &mut Findings, found: Option<(Bytes, Vec<String>)>) {
        findings.modern = Some(true);
        if let Some((result, versions)) = found {
            findings.set_versions(versions.iter().map(String::as_str));
            findings.discover = Some(Arc::new(DiscoverEntry { result, fetched_at: self.clock.unix_ms() }));
        }
    }

    /// Pings in the session, opening one if there is none or the server has forgotten it.
    async fn stay_legacy(&mut self, findings: &mut Findings) -> Result<(), ProbeError> {
        if self.session.open.is_none() || matches!(self.ping().await?, Ping::Lost) {
            // What the server does not know cannot be closed.
            self.session.open = None;
            match self.open().await {
                // No session may be opened yet; whether the process lives can be seen without one.
                Err(ProbeError::Waiting(_)) => return self.ping().await.map(|_| ()),
                other => other?,
            }
        }
        findings.modern = Some(false);
        findings.legacy = Some(true);
        findings.discover = None;
        if let Some(open) = &self.session.open {
            findings.set_versions([&*open.version].into_iter());
        }
        Ok(())
    }

    /// Whether a modern target also takes `initialize`; `None` if that did not become clear.
    async fn try_legacy(&mut self) -> Option<bool> {
        if self.session.open.is_some() {
            return Some(true);
        }
        match self.open().await {
            Ok(()) => {
                self.session.close(self.connector).await;
                Some(true)
            }
            Err(ProbeError::Refused { .. } | ProbeError::Status(400..=499)) => Some(false),
            Err(_) => None,
        }
    }

    async fn discover(&self) -> Result<Discovery, ProbeError> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": FIRST_MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": client_info(),
        });
        let headers = vec![
            (PROTOCOL_VERSION, HeaderValue::from_static(FIRST_MODERN)),
            (METHOD, HeaderValue::from_static("server/discover")),
        ];
        let answer = self.call("server/discover", json!({ "_meta": meta }), headers).await?;
        match (answer.status, answer.reply) {
            (401 | 403 | 407, _) => Err(ProbeError::Credential(answer.status)),
            (429 | 500.., _) => Err(ProbeError::Status(answer.status)),
            (_, Some(Reply::Result(result))) => Ok(match serde_json::from_slice::<Discovered>(&result) {
                Ok(d) if d.supported_versions.iter().any(|v| is_modern(v)) => {
                    Discovery::Modern(Some((result, d.supported_versions)))
                }
                _ => Discovery::NotModern,
            }),
            (_, Some(Reply::Error { code: -32020 | -32021, .. })) => Ok(Discovery::Modern(None)),
            _ => Ok(Discovery::NotModern),
        }
    }

    /// Any answer shows that the process lives; only 404 says that the session does not.
    async fn ping(&self) -> Result<Ping, ProbeError> {
        let headers = self.session.open.as_ref().map(Open::headers).unwrap_or_default();
        let in_session = self.session.open.as_ref().is_some_and(|o| o.id.is_some());
        let answer = self.call("ping", json!({}), headers).await?;
        match (answer.status, answer.reply) {
            (404, _) if in_session => Ok(Ping::Lost),
            (401 | 403 | 407, _) => Err(ProbeError::Credential(answer.status)),
            (500.., _) => Err(ProbeError::Status(answer.status)),
            _ => Ok(Ping::Alive),
        }
    }

    async fn open(&mut self) -> Result<(), ProbeError> {
        let now = self.clock.mono_ns();
        if self.session.retired {
            return Err(ProbeError::Retired);
        }
        if std::mem::take(&mut self.session.opening) {
            self.session.end_unknown(now);
        }
        if now < self.session.not_before {
            return Err(ProbeError::Waiting((self.session.not_before - now).div_ceil(1_000_000_000)));
        }
        self.session.opening = true;
        let params =
            json!({ "protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": client_info() });
        let answer = self.call("initialize", params, Vec::new()).await;
        self.session.opening = false;
        let result = answer.and_then(|answer| match answer.reply {
            _ if matches!(answer.status, 401 | 403 | 407) => Err(ProbeError::Credential(answer.status)),
            Some(Reply::Result(result)) => {
                let initialized: Initialized =
                    serde_json::from_slice(&result).map_err(|_| ProbeError::NotJsonRpc)?;
                Ok((initialized.protocol_version, answer.session))
            }
            Some(Reply::Error { code, message }) => Err(ProbeError::Refused { code, message }),
            None if answer.status >= 300 => Err(ProbeError::Status(answer.status)),
            None => Err(ProbeError::NotJsonRpc),
        });
        let (version, id) = match result {
            Ok(found) => found,
            Err(e) => {
                if e.may_have_acted() {
                    self.session.end_unknown(self.clock.mono_ns());
                }
                return Err(e);
            }
        };
        self.session.unknown_ends = 0;
        let open = Open { endpoint: Arc::clone(self.endpoint), id, version: version.into() };
        let headers = open.headers();
        self.session.open = Some(open);
        let body = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string();
        // A server that does not care for the notification still has a session.
        let _ = self.post(body, headers, None).await;
        Ok(())
    }

    async fn call(
        &self,
        method: &str,
        params: serde_json::Value,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Answer, ProbeError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        self.post(body, headers, Some(id)).await
    }

    async fn post(
        &self,
        body: String,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        want: Option<u64>,
    ) -> Result<Answer, ProbeError> {
        headers.push((header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream")));
        let path = &self.endpoint.path_and_query;
        let request = Request { method: Method::POST, path, headers, body: Some(body.into()), want };
        exchange::send(self.connector, self.endpoint, request).await
    }
}

impl ProbeSession {
    /// Ends the session for good.
    pub(crate) async fn retire(&mut self, connector: &Connector) {
        self.retired = true;
        self.close(connector).await;
    }

    /// Ends the session at the server, as far as it listens.
    async fn close(&mut self, connector: &Connector) {
        let Some(open) = self.open.take().filter(|o| o.id.is_some()) else { return };
        let path = &open.endpoint.path_and_query;
        let request =
            Request { method: Method::DELETE, path, headers: open.headers(), body: None, want: None };
        if let Err(e) = exchange::send(connector, &open.endpoint, request).await {
            tracing::debug!(event = "probe_session_not_closed", error = %e);
        }
    }

    fn end_unknown(&mut self, now: u64) {
        let wait = REOPEN_WAIT.saturating_mul(1 << self.unknown_ends.min(10)).min(MAX_REOPEN_WAIT);
        self.unknown_ends = self.unknown_ends.saturating_add(1);
        self.not_before = now.saturating_add(nanos(wait));
    }
}

impl Open {
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let version = HeaderValue::from_str(&self.version).ok().map(|v| (PROTOCOL_VERSION, v));
        version.into_iter().chain(self.id.clone().map(|id| (SESSION, id))).collect()
    }
}

fn same_modern(a: &[Arc<str>], b: &[Arc<str>]) -> bool {
    a.iter().filter(|v| is_modern(v)).eq(b.iter().filter(|v| is_modern(v)))
}

fn client_info() -> serde_json::Value {
    json!({ "name": "tollgate", "version": env!("CARGO_PKG_VERSION") })
}
