//! `/api/v1/events`: what happens, while it happens (server-sent events).

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use futures::Stream;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use crate::base::TenantId;
use crate::control::actor::Actor;
use crate::control::events::{Event, Joined, Listening, Topic};
use crate::control::extract::{Caller, ClientAddress, Params};
use crate::control::gate::Gated as _;
use crate::control::permission::{Permission, holds};
use crate::control::problem::{FieldError, Problem};

/// Streams of one actor.
const MAX_PER_ACTOR: usize = 8;
/// Streams of all.
const MAX_STREAMS: usize = 256;
/// A comment after this much silence.
const PING: Duration = Duration::from_secs(15);
/// How often a stream looks whether its reader may still read.
const RECHECK: Duration = Duration::from_secs(10);

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(stream_events))
}

/// Counts open streams.
#[derive(Default)]
pub(in crate::control) struct Readers(Mutex<HashMap<Whose, usize>>);

/// An id is one caller's in its tenant only.
type Whose = (TenantId, Arc<str>);

struct Reader {
    api: Api,
    actor: Whose,
}

impl Reader {
    fn enter(api: &Api, actor: &Actor) -> Result<Self, Problem> {
        let mut open = api.readers().0.lock();
        let all: usize = open.values().sum();
        let whose = (actor.tenant.clone(), actor.id.clone());
        if open.get(&whose).is_some_and(|own| *own >= MAX_PER_ACTOR) || all >= MAX_STREAMS {
            return Err(Problem::too_many("too many event streams are open", 30));
        }
        *open.entry(whose.clone()).or_default() += 1;
        Ok(Self { api: api.clone(), actor: whose })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut open = self.api.readers().0.lock();
        if let Some(own) = open.get_mut(&self.actor) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.actor);
            }
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Ask {
    /// Which topics, joined by commas: `config`, `health`, `traffic`, `audit`. All that the caller may read unless given.
    topics: Option<String>,
    /// Events of this tenant only. Who does not run the platform gets those of their own tenant in any case.
    tenant: Option<String>,
}

#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes a header")]
struct Again {
    /// The id of the last event that was seen.
    #[param(rename = "Last-Event-ID")]
    last_event_id: Option<String>,
}

/// Follow live events
///
/// A stream of server-sent events: `event` is the topic, `data` a JSON object with `tenant` and what happened. `config` and
/// `audit` are those of all replicas, `health` and `traffic` those of the replica that answers. `id` may be sent back as
/// `Last-Event-ID`; an event `missed` says that some are gone, and that what they were about should be read again. Load
/// (`traffic`) is not sent again. Ends when the credential does.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(Ask, Again),
    responses((status = 200, description = "Events.", content_type = "text/event-stream", body = String)))]
async fn stream_events(
    State(api): State<Api>,
    Caller(actor): Caller,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    Params(ask): Params<Ask>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Frame, Infallible>>>, Problem> {
    let topics = topics(ask.topics.as_deref(), &actor)?;
    let tenant = match ask.tenant {
        Some(name) if !actor.is_platform() && name != actor.tenant.as_str() => {
            return Err(Problem::not_found());
        }
        Some(name) => {
            let tenant = TenantId::new(name);
            if api.never_was(&tenant).await {
                return Err(Problem::no_tenant(&tenant));
            }
            Some(tenant)
        }
        None if actor.is_platform() => None,
        None => Some(actor.tenant.clone()),
    };
    let reader = Reader::enter(&api, &actor)?;
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let Joined { missed, gap, receiver, listening } = api.events().join(&topics, tenant.as_ref(), last);
    let state = Following {
        _listening: listening,
        reader,
        headers,
        address,
        topics,
        tenant,
        early: missed.into(),
        gap,
        receiver,
        recheck: Instant::now() + RECHECK,
    };
    let stream = futures::stream::unfold(state, |mut state| async move {
        let frame = state.next().await?;
        Some((Ok(frame), state))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(PING)))
}

struct Following {
    _listening: Listening,
    reader: Reader,
    headers: HeaderMap,
    /// Where the reader is: a key may be for some networks only.
    address: IpAddr,
    topics: Vec<Topic>,
    tenant: Option<TenantId>,
    early: std::collections::VecDeque<Arc<Event>>,
    gap: bool,
    receiver: tokio::sync::broadcast::Receiver<Arc<Event>>,
    recheck: Instant,
}

impl Following {
    /// The next frame; `None` ends the stream.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if std::mem::take(&mut self.gap) {
                return Some(Frame::default().event("missed").data("{}"));
            }
            let event = match self.early.pop_front() {
                Some(event) => event,
                None => tokio::select! {
                    received = self.receiver.recv() => match received {
                        Ok(event) => event,
                        Err(RecvError::Lagged(_)) => {
                            self.gap = true;
                            continue;
                        }
                        Err(RecvError::Closed) => return None,
                    },
                    () = tokio::time::sleep_until(self.recheck) => {
                        self.recheck = Instant::now() + RECHECK;
                        if !self.still_allowed().await {
                            return None;
                        }
                        continue;
                    }
                },
            };
            if self.wants(&event) {
                return Some(self.frame(&event));
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        // What is gone of everybody is gone of this tenant, too.
        let of_all = event.tenant.is_none() && event.data.is_none();
        self.topics.contains(&event.topic)
            && (of_all || self.tenant.as_ref().is_none_or(|tenant| event.tenant.as_ref() == Some(tenant)))
    }

    fn frame(&self, event: &Event) -> Frame {
        let frame = Frame::default().id(self.reader.api.events().id(event));
        let Some(data) = &event.data else {
            return frame
                .event("missed")
                .data(serde_json::json!({ "topic": event.topic.as_str() }).to_string());
        };
        let tenant = event.tenant.as_ref().map(TenantId::as_str);
        let data = serde_json::json!({ "tenant": tenant, "data": data });
        frame.event(event.topic.as_str()).data(data.to_string())
    }

    /// Whether the credential is still good, and for the same topics. A store that is away decides nothing.
    async fn still_allowed(&self) -> bool {
        match self.reader.api.authenticate(&self.headers, self.address).await {
            Ok(actor) => {
                let inside = actor.is_platform() || self.tenant.as_ref() == Some(&actor.tenant);
                inside && self.topics.iter().all(|topic| holds(&actor, needed(*topic)))
            }
            Err(problem) => problem.status().is_server_error(),
        }
    }
}

fn needed(topic: Topic) -> Permission {
    match topic {
        Topic::Audit => Permission::AuditRead,
        // Authors, reasons, and what is wrong with a document.
        Topic::Config => Permission::ConfigRead,
        Topic::Health => Permission::HealthRead,
        Topic::Traffic => Permission::UsageRead,
    }
}

fn topics(text: Option<&str>, actor: &Actor) -> Result<Vec<Topic>, Problem> {
    let Some(text) = text else {
        return Ok(Topic::ALL.into_iter().filter(|t| holds(actor, needed(*t))).collect());
    };
    let mut topics = Vec::new();
    for name in text.split(',') {
        let Some(topic) = Topic::ALL.into_iter().find(|t| t.as_str() == name) else {
            let error = FieldError::new("?topics", "there is no such topic");
            let known = Topic::ALL.map(Topic::as_str).join(", ");
            return Err(Problem::parameter("topics", "").replacing_errors([error.expecting(known)]));
        };
        if !holds(actor, needed(topic)) {
            let name = needed(topic).as_str();
            return Err(Problem::forbidden(format!("the topic needs the permission `{name}`")));
        }
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    Ok(topics)
}
