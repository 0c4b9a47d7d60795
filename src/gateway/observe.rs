//! The end of every request: metrics, access log and span, exactly once.
//!
//! An [`Observation`] is made before anything is decided and reports when it is dropped, so that a refused request, a
//! vanished client and a task that is torn down are seen as well as the ordinary end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use http::header::USER_AGENT;
use pingora::protocols::http::ServerSession;

use crate::base::{Principal, RequestId};
use crate::gateway::Gateway;
use crate::gateway::respond::Failure;
use crate::mcp::version::{Era, Version};
use crate::snapshot::Route;
use crate::telemetry::{AccessRecord, Method, Outcome, RequestTrace, SessionHash};
use crate::upstream::TargetRef;

/// What has been found out about a request so far.
pub(crate) struct Observation<'g> {
    gateway: &'g Gateway,
    pub(crate) request_id: RequestId,
    started: Instant,
    started_ms: u64,
    http_method: http::Method,
    user_agent: Option<HeaderValue>,
    pub(crate) trace: RequestTrace,
    /// The client, after trusted proxies.
    pub(crate) client: IpAddr,
    /// The connection itself comes from this machine, and no proxy speaks for somebody else.
    pub(crate) is_loopback: bool,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) principal: Option<Arc<Principal>>,
    pub(crate) target: Option<TargetRef>,
    pub(crate) method: Method,
    pub(crate) rpc_method: Option<Box<str>>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) id: Option<RawId>,
    pub(crate) era: Option<Era>,
    pub(crate) version: Option<Version>,
    pub(crate) session: Option<SessionHash>,
    pub(crate) status: u16,
    pub(crate) rpc_code: Option<i32>,
    pub(crate) outcome: Outcome,
    pub(crate) rule: Option<Box<str>>,
    pub(crate) limit: Option<Box<str>>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Time that was not ours: waiting for the server, or for the client's body.
    pub(crate) upstream: Duration,
    /// Whether the server has been asked.
    pub(crate) asked: bool,
    pub(crate) error: Option<String>,
}

/// A request's JSON-RPC id: where it lies in its body.
#[derive(Clone, Debug)]
pub(crate) struct RawId {
    body: Bytes,
    range: std::ops::Range<usize>,
}

impl RawId {
    pub(crate) fn new(body: &Bytes, range: std::ops::Range<usize>) -> Self {
        Self { body: body.clone(), range }
    }

    /// The JSON text.
    pub(crate) fn as_str(&self) -> &str {
        // The scanner has checked the whole body.
        std::str::from_utf8(&self.body[self.range.clone()]).unwrap_or("null")
    }
}

impl<'g> Observation<'g> {
    pub(crate) fn begin(gateway: &'g Gateway, session: &ServerSession, peer: Option<IpAddr>) -> Self {
        let head = session.req_header();
        let peer = peer.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let client = gateway.client_address(&head.headers, peer);
        Self {
            gateway,
            request_id: RequestId::fresh(),
            started: Instant::now(),
            started_ms: gateway.parts.clock.unix_ms(),
            http_method: head.method.clone(),
            user_agent: head.headers.get(USER_AGENT).cloned(),
            trace: RequestTrace::NONE,
            client,
            is_loopback: peer.is_loopback()
                && client == peer
                && !crate::gateway::headers::is_forwarded(&head.headers),
            route: None,
            principal: None,
            target: None,
            method: Method::None,
            rpc_method: None,
            name: None,
            id: None,
            era: None,
            version: None,
            session: None,
            status: 0,
            rpc_code: None,
            outcome: Outcome::ClientGone,
            rule: None,
            limit: None,
            bytes_in: 0,
            bytes_out: 0,
            upstream: Duration::ZERO,
            asked: false,
            error: None,
        }
    }

    /// The request is answered with an error of our own.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.status = failure.status.as_u16();
        self.rpc_code = Some(failure.code);
        self.outcome = failure.outcome;
        if failure.detail.is_some() {
            self.error.clone_from(&failure.detail);
        } else if failure.status.is_client_error() || failure.status.is_server_error() {
            self.error = Some(failure.message.to_string());
        }
    }
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        let route = self.route.as_deref();
        let principal = self.principal.as_deref();
        let record = AccessRecord {
            tenant: route.map_or("", |r| r.tenant.as_str()),
            route: route.map(|r| r.id.as_str()),
            server: route.filter(|_| self.asked).map(|r| r.server_id.as_str()),
            target: self.target.as_ref().map(TargetRef::as_str),
            principal: principal.map(|p| p.id.as_str()),
            kind: principal.map(|p| p.kind),
            role: principal.map(Principal::role),
            client_ip: Some(self.client),
            status: self.status,
            rpc_method: self.rpc_method.as_deref(),
            rpc_code: self.rpc_code.map(i64::from),
            rpc_id: self.id.as_ref().map(RawId::as_str),
            name: self.name.as_deref(),
            era: self.era.map(Era::as_str),
            protocol: self.version.map(Version::as_str),
            session: self.session,
            rule: self.rule.as_deref(),
            limit: self.limit.as_deref(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration: self.started.elapsed(),
            upstream: self.upstream,
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            error: self.error.as_deref(),
            ..AccessRecord::new(self.started_ms, self.request_id, self.http_method.as_str(), self.outcome)
        };
        let metrics = route.map_or(&self.gateway.unrouted, |r| &r.metrics);
        let server = (route.is_some() && self.asked).then_some(0);
        self.gateway.parts.telemetry.observe(metrics, server, self.method, &self.trace, &record);
    }
}
