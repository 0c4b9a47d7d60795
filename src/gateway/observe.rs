//! The end of every request: audit, metrics, access log and span, each exactly once.
//!
//! An [`Observation`] is made before anything is decided and reports when it is dropped, so that a refused request, a
//! vanished client and a task that is torn down are seen as well as the ordinary end.
//!
//! The audit's event is recorded earlier than the rest: [`Observation::settle`] is called before the last byte of a
//! response, so that no client has an answer whose event a `kill -9` could still take away. What only comes to light after that (a client
//! that does not take the last byte) is in the access log. What ends without an answer is recorded on the way out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use http::header::USER_AGENT;
use pingora::protocols::http::ServerSession;

use crate::audit::{Class, Credit, Event, Full, Receipt};
use crate::base::{Principal, RequestId};
use crate::canary::{Counts, Ended, Side};
use crate::gateway::Gateway;
use crate::gateway::record::{Answer, Recording};
use crate::gateway::respond::Failure;
use crate::mcp::version::{Era, Version};
use crate::policy::Record;
use crate::snapshot::Route;
use crate::telemetry::{
    AccessRecord, CanaryOutcome, CanarySide, MAX_NAME, Method, Outcome, RequestSample, RequestTrace,
    SampledPrincipal, Sampler, SessionHash, TraceId,
};
use crate::upstream::TargetRef;

/// A peer without an address.
const NOBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
/// What OpenTelemetry calls the method of a request that has none that is known.
const UNKNOWN_METHOD: &str = "_OTHER";

/// Why the head of a request could not be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unread {
    /// It is no head.
    Malformed,
    /// It did not come in time.
    Slow,
}

impl Unread {
    /// What it is answered with.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Slow => 408,
        }
    }
}

/// What has been found out about a request so far.
pub(crate) struct Observation<'g> {
    gateway: &'g Gateway,
    pub(crate) request_id: RequestId,
    started: Instant,
    pub(crate) started_ms: u64,
    /// `None`: the head could not be read.
    http_method: Option<http::Method>,
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
    /// Why it is not known who asks, in a word.
    pub(crate) stranger: Option<&'static str>,
    /// Where a canary counts it, and on which side the caller is.
    pub(crate) canary: Option<(Arc<Counts>, Side)>,
    /// Room for the event.
    pub(crate) credit: Option<Credit>,
    /// What is recorded of the bodies, if a policy says so. Boxed: rare.
    pub(crate) recording: Option<Box<Recording>>,
    /// The event has been recorded, or there is none.
    audited: bool,
    /// The arguments of the call, if a sample may hold them.
    pub(crate) arguments: Option<RawId>,
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
        let peer = peer.unwrap_or(NOBODY);
        let client = gateway.client_address(&head.headers, peer);
        let mut seen = Self::new(gateway, client, Instant::now());
        seen.http_method = Some(head.method.clone());
        seen.user_agent = head.headers.get(USER_AGENT).cloned();
        seen.is_loopback =
            peer.is_loopback() && client == peer && !crate::gateway::headers::is_forwarded(&head.headers);
        seen
    }

    /// A request whose head could not be read, and what it is answered with. Dropped at once: nothing more is found out.
    pub(crate) fn unread(gateway: &'g Gateway, peer: Option<IpAddr>, began: Instant, unread: Unread) -> Self {
        let mut seen = Self::new(gateway, peer.unwrap_or(NOBODY), began);
        seen.status = unread.status();
        (seen.outcome, seen.error) = match unread {
            Unread::Malformed => {
                (Outcome::BadRequest, Some("the head of the request is malformed or too long".to_owned()))
            }
            Unread::Slow => (Outcome::ClientSlow, Some("no whole head of a request came in time".to_owned())),
        };
        seen
    }

    fn new(gateway: &'g Gateway, client: IpAddr, started: Instant) -> Self {
        let ago = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self {
            gateway,
            request_id: RequestId::fresh(),
            started,
            started_ms: gateway.parts.clock.unix_ms().saturating_sub(ago),
            http_method: None,
            user_agent: None,
            trace: RequestTrace::NONE,
            client,
            is_loopback: false,
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
            stranger: None,
            canary: None,
            credit: None,
            recording: None,
            audited: false,
            arguments: None,
        }
    }

    /// The answer of a public document: nothing was decided, nothing is recorded.
    pub(crate) fn exempt(&mut self) {
        self.audited = true;
    }

    /// A rule that decided asks for bodies; `answered`: whether the message has an answer that can be recorded.
    pub(crate) fn record(&mut self, record: &Record, body: &Bytes, answered: bool) {
        let (request, response) = self.gateway.parts.audit.most_of_bodies();
        let request = if record.request { request.min(record.max) } else { 0 };
        let response = if record.response && answered { response.min(record.max) } else { 0 };
        if request + response > 0 {
            let recording = self.recording.get_or_insert_with(|| Box::new(Recording::new(body)));
            recording.widen(request, response, record);
        }
    }

    /// What was kept of the answer, if something was.
    pub(crate) fn answered(&mut self, answer: Option<Answer>) {
        if let (Some(recording), Some(answer)) = (&mut self.recording, answer) {
            recording.answered(answer);
        }
    }

    /// Records the event of this request as it ends now; later calls do nothing.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn settle(&mut self) -> Result<Option<Receipt>, Full> {
        if std::mem::replace(&mut self.audited, true) {
            return Ok(None);
        }
        let audit = &self.gateway.parts.audit;
        if !audit.is_enabled() {
            return Ok(None);
        }
        let credit = self.credit.take();
        let recorded = self.recording.take().map(|recording| recording.finish()).unwrap_or_default();
        let elapsed = self.started.elapsed();
        let micros = |d: Duration| Some(u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
        let route = self.route.as_deref();
        let principal = self.principal.as_deref();
        let now_us = self.started_ms * 1000 + micros(elapsed).unwrap_or(0);
        let event = Event {
            principal: principal.map(|p| p.id.as_str()),
            kind: principal.map(|p| p.kind.as_str()),
            role: principal.map(|p| p.role().as_str()),
            http_method: self.http_method.as_ref().map(http::Method::as_str),
            method: self.rpc_method.as_deref(),
            route: route.map(|r| r.id.as_str()),
            server: route.filter(|_| self.asked).map(|r| r.server_id.as_str()),
            target: self.target.as_ref().map(TargetRef::as_str),
            name: self.name.as_deref(),
            decision: Some(decision(self.outcome)),
            rule: self.rule.as_deref(),
            limit: self.limit.as_deref(),
            outcome: Some(self.outcome.as_str()),
            revision: route.and_then(|r| r.revision.to_str().ok()),
            reason: self.error.as_deref(),
            status: (self.status != 0).then_some(u64::from(self.status)),
            bytes_in: Some(self.bytes_in),
            bytes_out: Some(self.bytes_out),
            duration_us: micros(elapsed),
            upstream_us: micros(self.upstream),
            session: self.session.map(SessionHash::to_u64),
            rpc_code: self.rpc_code,
            client_ip: Some(self.client),
            request_id: Some(self.request_id.to_bytes()),
            trace_id: self.trace.trace_id().map(TraceId::to_bytes),
            request_body: recorded.request.as_deref(),
            request_cut: recorded.request_cut,
            response_body: recorded.response.as_deref(),
            response_cut: recorded.response_cut,
            // What no route takes is the operator's to look at.
            ..Event::new(now_us, route.map_or("default", |r| r.tenant.as_str()), Class::Data)
        };
        if principal.is_none() {
            // Never refused: there is always room to count it.
            return Ok(Some(
                audit.record_unidentified(&event, self.stranger.unwrap_or(self.outcome.as_str())),
            ));
        }
        audit.record(&event, credit).map(Some)
    }

    /// The same for an answer that is about to be sent whole, and waits for the disk if that is what counts.
    ///
    /// # Errors
    /// There is no room, or the disk failed.
    pub(crate) async fn settled(&mut self, outcome: Outcome) -> Result<(), Full> {
        let before = std::mem::replace(&mut self.outcome, outcome);
        let receipt = self.settle();
        self.outcome = before;
        match receipt? {
            Some(receipt) => receipt.durable().await,
            None => Ok(()),
        }
    }

    pub(crate) fn sampler(&self) -> Option<&'g Sampler> {
        self.gateway.parts.sampler.as_deref()
    }

    /// Offers the request to the sample. Names that were cut are left out: nothing could be decided by them.
    fn sample(&self, sampler: &Sampler, route: &Route) {
        let Some(method) = self.rpc_method.as_deref() else { return };
        let name = self.name.as_deref();
        if name.is_some_and(|name| name.len() + char::MAX.len_utf8() > MAX_NAME) {
            return;
        }
        sampler.offer(route.tenant.as_str(), route.id.as_str(), self.started_ms, || RequestSample {
            time: self.started_ms,
            weight: 1,
            tenant: Some(route.tenant.to_string()),
            route: Some(route.id.to_string()),
            host: route.url.split("://").nth(1).and_then(|rest| rest.split('/').next()).map(str::to_owned),
            path: Some(route.path.to_string()),
            server: self.asked.then(|| route.server_id.to_string()),
            method: method.to_owned(),
            name: name.map(str::to_owned),
            principal: self.principal.as_deref().map(|principal| SampledPrincipal {
                id: principal.id.to_string(),
                kind: principal.kind.as_str().to_owned(),
                roles: principal.roles.iter().map(|role| role.as_str().to_owned()).collect(),
                groups: principal.groups.iter().map(ToString::to_string).collect(),
                scopes: principal.scopes.iter().map(ToString::to_string).collect(),
            }),
            ip: self.client,
            outcome: self.outcome.as_str().to_owned(),
            arguments: self.arguments.as_ref().map(|raw| raw.as_str().to_owned()),
        });
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
        // Nobody is left to be refused; what could not be recorded is counted.
        let _ = self.settle();
        let route = self.route.as_deref();
        let principal = self.principal.as_deref();
        let method = self.http_method.as_ref().map_or(UNKNOWN_METHOD, http::Method::as_str);
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
            ..AccessRecord::new(self.started_ms, self.request_id, method, self.outcome)
        };
        if let (Some(sampler), Some(route)) = (&self.gateway.parts.sampler, route) {
            self.sample(sampler, route);
        }
        if let (Some((counts, side)), Some(route)) = (&self.canary, route) {
            let ended = ended(self.outcome);
            // As everywhere: a stream that stays open says nothing about speed, and neither does a refusal.
            let timed = ended != Ended::Denied && !self.method.stays_open();
            counts.record(*side, ended, timed.then_some(record.duration));
            route.tenant_metrics.canary_called(side_label(*side), ended_label(ended));
        }
        let metrics = route.map_or(&self.gateway.unrouted, |r| &r.metrics);
        let server = (route.is_some() && self.asked).then_some(0);
        self.gateway.parts.telemetry.observe(metrics, server, self.method, &self.trace, &record);
    }
}

fn side_label(side: Side) -> CanarySide {
    match side {
        Side::Base => CanarySide::Base,
        Side::Candidate => CanarySide::Candidate,
    }
}

fn ended_label(ended: Ended) -> CanaryOutcome {
    match ended {
        Ended::Denied => CanaryOutcome::Denied,
        Ended::Failed => CanaryOutcome::Failed,
        Ended::Ok => CanaryOutcome::Ok,
    }
}

/// What a canary makes of a request that ended so: an error is what we or the server did not manage. What a tool or a
/// server says of the request itself is an answer, and so is the client's own fault.
fn ended(outcome: Outcome) -> Ended {
    match outcome {
        Outcome::Denied
        | Outcome::Forbidden
        | Outcome::Limited
        | Outcome::NotFound
        | Outcome::Unauthenticated
        | Outcome::UnknownItem => Ended::Denied,
        Outcome::Internal
        | Outcome::Overload
        | Outcome::Timeout
        | Outcome::UpstreamCredential
        | Outcome::UpstreamError
        | Outcome::UpstreamUnavailable => Ended::Failed,
        Outcome::BadRequest
        | Outcome::ClientGone
        | Outcome::ClientSlow
        | Outcome::HeaderMismatch
        | Outcome::Ok
        | Outcome::RpcError
        | Outcome::SessionUnknown
        | Outcome::ToolError
        | Outcome::TooLarge
        | Outcome::UnsupportedVersion => Ended::Ok,
    }
}

/// What was decided about a request that ended so.
fn decision(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Denied | Outcome::Forbidden | Outcome::Unauthenticated | Outcome::UnknownItem => "deny",
        Outcome::Limited | Outcome::Overload => "limit",
        Outcome::BadRequest
        | Outcome::ClientSlow
        | Outcome::HeaderMismatch
        | Outcome::Internal
        | Outcome::NotFound
        | Outcome::SessionUnknown
        | Outcome::TooLarge
        | Outcome::UnsupportedVersion => "error",
        Outcome::ClientGone
        | Outcome::Ok
        | Outcome::RpcError
        | Outcome::Timeout
        | Outcome::ToolError
        | Outcome::UpstreamCredential
        | Outcome::UpstreamError
        | Outcome::UpstreamUnavailable => "allow",
    }
}
