//! The request path's last part: select a target, exchange, relay the answer.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use pingora::protocols::http::ServerSession;

use crate::gateway::answer::outcome_of;
use crate::gateway::exchange::{self, Exchange, OpenError, Outgoing, Patience};
use crate::gateway::observe::Observation;
use crate::gateway::relay::Relayed;
use crate::gateway::respond::Failure;
use crate::gateway::serve::Caller;
use crate::gateway::step::affinity::Session;
use crate::gateway::{Gateway, Stop, headers};
use crate::limit::{Exhausted, Permit};
use crate::mcp::rewrite::ListKind;
use crate::mcp::scan::{Kind, Message};
use crate::mcp::version::Era;
use crate::telemetry::{Outcome, UpstreamError};
use crate::upstream::{self, Lease, TargetKey, TargetRef};

/// What a timeout that is switched off means.
pub(crate) const FOREVER: Duration = Duration::from_secs(366 * 24 * 3600);
/// Most attempts at one request, whatever is configured.
const MAX_ATTEMPTS: usize = 10;

/// What a request is to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A request with one answer.
    Call,
    /// DELETE.
    Delete,
    /// `initialize`.
    Handshake,
    /// `subscriptions/listen`.
    Listen,
    /// Notifications and answers of the client: 202 and nothing more.
    OneWay,
    /// GET: the server's own stream.
    Stream,
}

impl Sort {
    pub(crate) fn of(message: &Message<'_>) -> Self {
        match message.kind {
            Kind::Notification | Kind::Response(_) => Sort::OneWay,
            Kind::Request => match message.method_name() {
                "initialize" => Sort::Handshake,
                "subscriptions/listen" => Sort::Listen,
                _ => Sort::Call,
            },
        }
    }

    pub(crate) fn is_long_lived(self) -> bool {
        matches!(self, Sort::Listen | Sort::Stream)
    }
}

/// Where a request must go.
pub(crate) enum Stay {
    Anywhere,
    Session(Session),
    /// To the target that issued a handle; the handle's name for the error if that target is gone.
    Target(TargetRef, &'static str),
}

/// A request that may go to a server.
pub(crate) struct Dispatch<'m> {
    pub(crate) method: Method,
    pub(crate) body: Bytes,
    pub(crate) sort: Sort,
    pub(crate) stay: Stay,
    /// Replaces `Mcp-Name`.
    pub(crate) name_header: Option<HeaderValue>,
    pub(crate) known_tasks: Vec<(String, String)>,
    pub(crate) request: Option<&'m Message<'m>>,
    pub(crate) list: Option<ListKind>,
}

/// The answer has begun.
struct Answered {
    lease: Lease,
    exchange: Exchange,
}

impl Gateway {
    pub(super) async fn dispatch(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &headers::Common<'_>,
        caller: &Caller,
        dispatch: Dispatch<'_>,
    ) -> Result<(), Stop> {
        let _permit = if dispatch.sort.is_long_lived() { Some(self.stream_permit(caller)?) } else { None };
        let _stream = match &dispatch.stay {
            Stay::Session(s) if dispatch.sort == Sort::Stream => {
                Some(s.record.open_stream().map_err(|_| Failure::unknown_session())?)
            }
            _ => None,
        };
        let _counted = dispatch.sort.is_long_lived().then(|| caller.route.metrics.stream());
        let outgoing = self.outgoing(session.req_header(), seen, &dispatch);
        seen.asked = true;
        let asked = Instant::now();
        let opened = self.open(session, seen, caller, &dispatch, &outgoing).await;
        // A stream would keep it.
        drop(outgoing);
        seen.upstream += asked.elapsed();
        let Answered { mut lease, mut exchange } = opened?;
        lease.first_byte(asked.elapsed());
        seen.target = Some(lease.target_ref().clone());
        let status = exchange.status();
        let result = self.relay(session, seen, common, caller, &dispatch, &lease, &mut exchange).await;
        let verdict = match &result {
            Ok(relayed) if relayed.broken.is_some() => upstream::Outcome::Reset,
            Ok(relayed) if relayed.client_gone => upstream::Outcome::ClientGone,
            Ok(_) => upstream::Outcome::from_status(status.as_u16()),
            Err(Stop::Client(_) | Stop::Failure(_)) => upstream::Outcome::from_status(status.as_u16()),
            Err(_) => upstream::Outcome::Reset,
        };
        exchange.finish(&self.clients, &lease).await;
        lease.finish(verdict);
        self.conclude(seen, caller, &dispatch, status, result)
    }

    /// Fills in how it ended.
    fn conclude(
        &self,
        seen: &mut Observation<'_>,
        caller: &Caller,
        dispatch: &Dispatch<'_>,
        status: StatusCode,
        result: Result<Relayed, Stop>,
    ) -> Result<(), Stop> {
        let relayed = result?;
        seen.bytes_out = relayed.bytes_out;
        seen.upstream += relayed.waited;
        if let Some(reason) = relayed.broken {
            caller.route.server_failed(UpstreamError::Reset);
            seen.outcome = Outcome::UpstreamError;
            seen.error = Some(reason.clone());
            return if relayed.ended { Ok(()) } else { Err(Stop::Cut(reason)) };
        }
        // A client that leaves a stream which has no end of its own has done nothing unusual.
        seen.outcome = if relayed.client_gone && !dispatch.sort.is_long_lived() {
            Outcome::ClientGone
        } else {
            outcome_of(status, dispatch)
        };
        if relayed.client_gone {
            Err(Stop::Cut("the client closed the connection".to_owned()))
        } else {
            Ok(())
        }
    }

    fn stream_permit(&self, caller: &Caller) -> Result<Permit<Box<str>>, Stop> {
        let max = self.settings.max_streams_per_principal;
        let key = format!("{}\0{}", caller.route.tenant, caller.principal().id).into_boxed_str();
        self.streams.acquire(key, max).map_err(|e| match e {
            Exhausted::Key { .. } => Failure::too_many_streams(max).into(),
            Exhausted::Keys => Failure::too_many_streams(0).into(),
        })
    }

    /// Step 8 and the first half of step 9: a target, a connection, the response header; again where that is safe.
    async fn open(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        caller: &Caller,
        dispatch: &Dispatch<'_>,
        outgoing: &Outgoing,
    ) -> Result<Answered, Stop> {
        let route = &caller.route;
        let server = &route.server;
        let attempts = route.attempts.clamp(1, MAX_ATTEMPTS);
        let mut tried: [TargetKey; MAX_ATTEMPTS] = [TargetKey::NONE; MAX_ATTEMPTS];
        server.retry_budget().deposit();
        for attempt in 0..attempts {
            let lease = self.select(session.req_header(), caller, dispatch, &tried[..attempt])?;
            let timeouts = *lease.timeouts();
            let first_byte =
                if dispatch.sort.is_long_lived() { timeouts.stream_idle } else { timeouts.first_byte };
            let first_byte = first_byte.unwrap_or(FOREVER);
            let patience = Patience { connect: timeouts.connect, first_byte };
            let cancels = seen.era == Some(Era::Modern) || dispatch.sort == Sort::Stream;
            let opened = {
                let opening = pin!(exchange::open(&self.clients, &lease, outgoing, patience));
                race(session, opening, cancels).await
            };
            let error = match opened {
                Race::Done(Ok(exchange)) => return Ok(Answered { lease, exchange }),
                Race::Done(Err(error)) => error,
                Race::Gone(detail) => return Err(Stop::Client(detail)),
            };
            seen.target = Some(lease.target_ref().clone());
            tried[attempt] = lease.key();
            let (label, verdict) = judge(&error);
            route.server_failed(label);
            lease.finish(verdict);
            let safe = error.unseen()
                || (matches!(error, OpenError::Broken { reused: true, .. }) && repeatable(dispatch));
            // A stale pooled connection says nothing about the target: the same one may be asked again.
            let movable = matches!(dispatch.stay, Stay::Anywhere) || !error.unseen();
            if attempt + 1 < attempts && safe && movable && server.retry_budget().withdraw() {
                if !error.unseen() {
                    tried[attempt] = TargetKey::NONE;
                }
                route.server_retried();
                continue;
            }
            return Err(self.open_failed(seen, caller, dispatch, &error));
        }
        Err(Failure::no_target(route.server_id.as_str()).into())
    }

    fn open_failed(
        &self,
        seen: &mut Observation<'_>,
        caller: &Caller,
        dispatch: &Dispatch<'_>,
        error: &OpenError,
    ) -> Stop {
        let server = caller.route.server_id.as_str();
        let failure = match (error, &dispatch.stay) {
            // Nothing listens where the session lives: it is lost, and the client must know.
            (OpenError::Connect(detail), Stay::Session(s)) => {
                self.parts.sessions.close(&caller.route.tenant, s.record.serial());
                Failure::unknown_session().detail(detail.clone())
            }
            (OpenError::Connect(detail), Stay::Target(_, what)) => {
                Failure::bad_handle(what).detail(detail.clone())
            }
            (OpenError::Connect(detail), Stay::Anywhere) => {
                Failure::upstream_unreachable(server, detail.clone())
            }
            (OpenError::Broken { detail, .. }, _) => Failure::upstream_failed(server, detail.clone()),
            (OpenError::FirstByte, _) => Failure::deadline(server, "first_byte"),
            (OpenError::Invalid(detail), _) => Failure::upstream_response(server, detail.clone()),
        };
        seen.error = Some(error.detail().to_owned());
        failure.into()
    }
}

/// Which came first: the server's answer, or the client's end.
pub(crate) enum Race<T> {
    Done(T),
    Gone(String),
}

/// Waits for the answer and watches the client. A client that leaves cancels only where its era says so.
/// `opening` is pinned by the caller, because a future that is passed on by value is held twice.
pub(crate) async fn race<T, F: Future<Output = T>>(
    session: &mut ServerSession,
    mut opening: Pin<&mut F>,
    cancels: bool,
) -> Race<T> {
    if cancels {
        tokio::select! {
            biased;
            done = &mut opening => Race::Done(done),
            gone = session.read_body_or_idle(true) => {
                Race::Gone(gone.err().map_or_else(|| "unexpected bytes".to_owned(), |e| e.to_string()))
            }
        }
    } else {
        Race::Done(opening.await)
    }
}

/// What a failure says about the target.
fn judge(error: &OpenError) -> (UpstreamError, upstream::Outcome) {
    match error {
        OpenError::Connect(_) => (UpstreamError::Connect, upstream::Outcome::ConnectFailed),
        // The server closed an idle connection at the same moment: nobody's fault.
        OpenError::Broken { reused: true, .. } => (UpstreamError::Reset, upstream::Outcome::ClientGone),
        OpenError::Broken { .. } => (UpstreamError::Reset, upstream::Outcome::Reset),
        OpenError::FirstByte => (UpstreamError::Timeout, upstream::Outcome::Timeout),
        OpenError::Invalid(_) => (UpstreamError::Protocol, upstream::Outcome::Reset),
    }
}

/// Whether running the request twice does no harm.
fn repeatable(dispatch: &Dispatch<'_>) -> bool {
    match dispatch.sort {
        Sort::Stream | Sort::Listen | Sort::Delete => true,
        Sort::Handshake => true,
        Sort::OneWay => false,
        Sort::Call => dispatch.request.is_some_and(|m| {
            let method = m.method_name();
            method.ends_with("/list")
                || matches!(
                    method,
                    "completion/complete" | "ping" | "prompts/get" | "resources/read" | "server/discover"
                )
        }),
    }
}
