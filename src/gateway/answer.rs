//! The server's answer: what its status means, what has to be rewritten in it, and how it is passed on.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora::protocols::http::ServerSession;

use crate::gateway::exchange::{Exchange, Whole};
use crate::gateway::observe::Observation;
use crate::gateway::record::Answer;
use crate::gateway::relay::{self, Plan, Relayed, Rewrite};
use crate::gateway::respond::{self, Failure};
use crate::gateway::rewrite::{Handles, ListFilter};
use crate::gateway::send::{Dispatch, FOREVER, Sort, Stay};
use crate::gateway::serve::Caller;
use crate::gateway::step::permit::policy_facts;
use crate::gateway::{Gateway, Stop, headers};
use crate::mcp::rewrite::with_id;
use crate::mcp::seal::KeyRing;
use crate::mcp::session::{Listed, StreamInfo};
use crate::mcp::version::Era;
use crate::policy::Item;
use crate::telemetry::{Outcome, UpstreamError};
use crate::upstream::Lease;

/// A JSON answer up to this size is collected when it has to be looked into; so is one event of a stream.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
/// An error of a server is collected up to this size to see whether it means a lost session.
const ERROR_LIMIT: usize = 64 * 1024;

impl Gateway {
    /// The second half of step 9.
    #[allow(clippy::too_many_arguments, reason = "the facts of one request, each with its own life")]
    pub(crate) async fn relay(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &headers::Common<'_>,
        caller: &Caller,
        dispatch: &Dispatch<'_>,
        lease: &Lease,
        exchange: &mut Exchange,
    ) -> Result<Relayed, Stop> {
        let server = caller.route.server_id.as_str();
        let status = exchange.status();
        seen.status = status.as_u16();
        if let Stay::Session(s) = &dispatch.stay {
            if status == StatusCode::NOT_FOUND
                || (status == StatusCode::BAD_REQUEST && self.means_lost_session(lease, exchange).await)
            {
                caller.route.server_failed(UpstreamError::Session);
                self.parts.sessions.close(&caller.route.tenant, s.record.serial());
                return Err(Failure::unknown_session().into());
            }
            if dispatch.sort == Sort::Delete && status.is_success() {
                self.parts.sessions.close(&caller.route.tenant, s.record.serial());
            }
        }
        let challenges = exchange.headers().contains_key(http::header::WWW_AUTHENTICATE);
        if status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && challenges) {
            caller.route.server_failed(UpstreamError::Credential);
            return Err(Failure::upstream_credential(server).into());
        }
        let one_way = matches!(dispatch.sort, Sort::OneWay | Sort::Delete) && status.is_success();
        if one_way {
            // Servers answer DELETE with 200, 202 or 204, and clients take only some of them.
            let status =
                if dispatch.sort == Sort::Delete { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
            seen.status = status.as_u16();
            let mut header = headers::response(status, 6);
            common.apply(&mut header);
            let _ =
                tokio::time::timeout(Duration::from_secs(1), exchange.collect(ERROR_LIMIT, FOREVER)).await;
            seen.settled(Outcome::Ok).await.map_err(|_| Failure::audit_failed())?;
            respond::send(session, header, Bytes::new()).await.map_err(Stop::client)?;
            return Ok(Relayed { ended: true, ..Relayed::default() });
        }
        let is_stream = relay::is_event_stream(exchange.headers());
        let mut header = relay::response_header(exchange.headers(), status, common);
        let mut prefix = Bytes::new();
        if dispatch.sort == Sort::Handshake && status.is_success() {
            prefix = self.handshake(seen, caller, lease, exchange, &mut header, is_stream).await?;
        }
        let ring = self.parts.keys.load_full();
        let mut filter = self.filter(seen, caller, dispatch);
        let mut handles = self.handles(seen, caller, dispatch, lease, &ring);
        let rewrite: Option<&mut dyn Rewrite> = match (&mut filter, &mut handles) {
            _ if !status.is_success() => None,
            (Some(filter), _) => Some(filter),
            (None, Some(handles)) => Some(handles),
            (None, None) => None,
        };
        let timeouts = lease.timeouts();
        let listed = dispatch.sort.is_long_lived().then(|| self.list_stream(caller, dispatch));
        let waited = std::time::Instant::now();
        let cancel_on_disconnect = seen.era == Some(Era::Modern) || dispatch.sort == Sort::Stream;
        let ended = outcome_of(status, dispatch);
        let recording = seen.recording.as_ref().filter(|_| !dispatch.sort.is_long_lived());
        let answer = recording.and_then(|recording| recording.follow(is_stream));
        let mut settle = |bytes_out: u64, broken: Option<&str>, answer: Option<Answer>| {
            seen.answered(answer);
            seen.bytes_out = bytes_out;
            seen.outcome = if broken.is_some() { Outcome::UpstreamError } else { ended };
            if let Some(reason) = broken {
                seen.error = Some(reason.to_owned());
            }
            // The rest of the wait is added when the relay is over.
            let upstream = seen.upstream;
            seen.upstream += waited.elapsed();
            let receipt = seen.settle();
            seen.upstream = upstream;
            seen.outcome = Outcome::ClientGone;
            receipt
        };
        let mut plan = Plan {
            cancel_on_disconnect,
            settle: &mut settle,
            long_lived: dispatch.sort.is_long_lived(),
            idle: if is_stream { timeouts.stream_idle } else { timeouts.idle }.unwrap_or(FOREVER),
            id: dispatch.request.and_then(|m| m.id.as_ref()).map(|id| id.as_str()),
            rewrite,
            farewell: farewell(dispatch),
            expires: self.expiry(caller),
            ended: match &dispatch.stay {
                Stay::Session(s) => Some(s.record.clone()),
                _ => None,
            },
            closing: listed.as_ref().map(|listed| listed.stream().clone()),
            message_limit: MESSAGE_LIMIT,
            prefix,
            phase: self.parts.phase.clone(),
            answer,
        };
        let result = if is_stream {
            Ok(relay::events(session, exchange, header, &mut plan).await)
        } else {
            let whole = timeouts.request.unwrap_or(FOREVER);
            match tokio::time::timeout(whole, relay::json(session, exchange, header, &mut plan)).await {
                Ok(result) => result,
                Err(_) if session.response_written().is_none() => {
                    Err(Failure::deadline(server, "request").into())
                }
                Err(_) => Err(Stop::Cut(format!("the answer was not complete within {whole:?}"))),
            }
        };
        // What has passed of an answer that did not end.
        let begun = plan.answer.take();
        drop(plan);
        seen.answered(begun);
        result
    }

    fn list_stream(&self, caller: &Caller, dispatch: &Dispatch<'_>) -> Listed {
        self.parts.streams.list_open(StreamInfo {
            tenant: caller.route.tenant.clone(),
            route: caller.route.id.clone(),
            principal: caller.principal().id.clone(),
            session: match &dispatch.stay {
                Stay::Session(session) => Some(session.record.serial()),
                _ => None,
            },
            since: self.parts.clock.unix_secs(),
        })
    }

    /// Whether an error of the server says that it does not know the session: some answer 400 where 404 is due.
    async fn means_lost_session(&self, lease: &Lease, exchange: &mut Exchange) -> bool {
        let idle = lease.timeouts().idle.unwrap_or(FOREVER);
        let Ok((body, whole)) = exchange.collect(ERROR_LIMIT, idle).await else { return false };
        exchange.put_back(body.clone());
        whole == Whole::Yes
            && body.windows(6).any(|w| w == b"-32000")
            && body.windows(7).any(|w| w.eq_ignore_ascii_case(b"session"))
    }

    fn filter<'a>(
        &'a self,
        seen: &Observation<'_>,
        caller: &'a Caller,
        dispatch: &'a Dispatch<'_>,
    ) -> Option<ListFilter<'a>> {
        let kind = dispatch.list?;
        let method = dispatch.request?.method_name();
        Some(ListFilter {
            kind,
            policy: caller.route.policy.as_deref(),
            restriction: caller.identity.restriction.as_deref(),
            facts: policy_facts(seen, caller, method, Item::None, None),
        })
    }

    /// Only these methods answer with handles (MRTR, Tasks).
    fn handles<'a>(
        &self,
        seen: &Observation<'_>,
        caller: &'a Caller,
        dispatch: &'a Dispatch<'_>,
        lease: &'a Lease,
        ring: &'a KeyRing,
    ) -> Option<Handles<'a>> {
        let request = dispatch.request?;
        let method = request.method_name();
        let seals =
            matches!(method, "tools/call" | "prompts/get" | "resources/read" | "subscriptions/listen")
                || method.starts_with("tasks/");
        if seen.era != Some(Era::Modern) || !seals {
            return None;
        }
        Some(Handles {
            ring,
            binding: caller.binding(),
            target: lease.target_ref().as_str(),
            method,
            name: request.params.name.as_deref().or(request.params.uri.as_deref()),
            now: self.parts.clock.unix_secs(),
            known: &dispatch.known_tasks,
        })
    }

    fn expiry(&self, caller: &Caller) -> Option<tokio::time::Instant> {
        let left = caller.principal().expires_at?.saturating_sub(self.parts.clock.unix_secs());
        Some(tokio::time::Instant::now() + Duration::from_secs(left))
    }
}

/// How a request ends whose answer has this status and reaches the client.
pub(crate) fn outcome_of(status: StatusCode, dispatch: &Dispatch<'_>) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Ok,
        500.. => Outcome::UpstreamError,
        404 if matches!(dispatch.stay, Stay::Session(_)) => Outcome::SessionUnknown,
        _ => Outcome::RpcError,
    }
}

/// What a listener hears last when its stream ends for a reason of ours: an ordinary completion, so that it asks again.
fn farewell(dispatch: &Dispatch<'_>) -> Option<Vec<u8>> {
    if dispatch.sort != Sort::Listen {
        return None;
    }
    let id = dispatch.request?.id.as_ref()?.as_str();
    let result =
        format!(r#"{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#);
    Some(with_id(result.as_bytes(), id))
}
