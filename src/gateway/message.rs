//! The request path from the body on: read, classify, limit, authorize, and find where it has to go.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use pingora::protocols::http::ServerSession;

use crate::gateway::observe::{Observation, RawId};
use crate::gateway::respond::{Failure, clip};
use crate::gateway::send::{Dispatch, Sort, Stay};
use crate::gateway::serve::Caller;
use crate::gateway::step::affinity::Session;
use crate::gateway::step::permit::item_of;
use crate::gateway::{Gateway, Stop, body, headers};
use crate::limit::Incoming;
use crate::mcp::classify::{self, Classified, Refusal, classify};
use crate::mcp::rewrite::{splice, with_id};
use crate::mcp::scan::{self, Body, Kind, Message};
use crate::mcp::session::LogLevel;
use crate::mcp::version::Era;
use crate::telemetry;

/// Longest name of a tool, prompt or resource that is kept for the log.
const LOGGED_NAME: usize = telemetry::MAX_NAME;

impl Gateway {
    /// A POST: one message, or a batch of them.
    pub(super) async fn post(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &mut headers::Common<'_>,
        caller: &Caller,
    ) -> Result<(), Stop> {
        let waiting = std::time::Instant::now();
        let bytes = body::read(session, self.settings.max_body, self.settings.body_timeout).await?;
        // The client's pace is not our cost.
        seen.upstream += waiting.elapsed();
        seen.bytes_in = bytes.len() as u64;
        let scanned = scan::scan(&bytes).map_err(|e| Failure::unreadable(&e))?;
        if let Body::One(message) = &scanned {
            note_message(seen, &bytes, message);
        }
        let request = &session.req_header().headers;
        let traceparent = headers::single(request, &headers::TRACEPARENT);
        let in_meta = scanned.messages().first().and_then(|m| m.params.meta.traceparent.as_deref());
        seen.trace = self.parts.telemetry.tracer.start(in_meta, traceparent);

        let presented = self.presented(seen, request, caller);
        let served = caller.route.served();
        let facts = classify::Facts {
            http: &Method::POST,
            headers: classify::Headers::read(request),
            body: Some(body_facts(&scanned)),
            session: presented.version(),
        };
        let Classified { era, version } = classify(&facts, served).map_err(Failure::refusal)?;
        seen.era = Some(era);
        seen.version = Some(version);
        match (era, &scanned) {
            (Era::Modern, Body::One(message)) => {
                self.modern(session, seen, common, caller, &bytes, message).await
            }
            (Era::Modern, Body::Batch(_)) => Err(Failure::refusal(Refusal::batch_not_accepted()).into()),
            (Era::Legacy, body) => {
                let is_handshake = matches!(body, Body::One(m) if m.method_name() == "initialize");
                let presented = if is_handshake { None } else { presented.require()? };
                self.legacy(session, seen, common, caller, &bytes, body, presented).await
            }
        }
    }

    /// GET and DELETE: legacy only.
    pub(super) async fn without_body(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &mut headers::Common<'_>,
        caller: &Caller,
    ) -> Result<(), Stop> {
        let head = session.req_header();
        let method = head.method.clone();
        let is_delete = method == Method::DELETE;
        seen.method = if is_delete { telemetry::Method::Delete } else { telemetry::Method::Stream };
        let traceparent = headers::single(&head.headers, &headers::TRACEPARENT);
        seen.trace = self.parts.telemetry.tracer.start(None, traceparent);
        let presented = self.presented(seen, &head.headers, caller);
        let facts = classify::Facts {
            http: &method,
            headers: classify::Headers::read(&head.headers),
            body: None,
            session: presented.version(),
        };
        let classified = classify(&facts, caller.route.served()).map_err(Failure::refusal)?;
        seen.era = Some(classified.era);
        seen.version = Some(classified.version);
        let presented = presented.require()?;
        let incoming = if is_delete { Incoming::Delete } else { Incoming::Request("stream") };
        self.limit(seen, common, caller, incoming, "stream", None).await?;
        self.authorize_plain(
            seen,
            caller,
            if is_delete { "notifications/session" } else { "subscriptions/listen" },
        )?;
        let dispatch = Dispatch {
            method,
            body: Bytes::new(),
            sort: if is_delete { Sort::Delete } else { Sort::Stream },
            stay: presented.map_or(Stay::Anywhere, Stay::Session),
            name_header: None,
            known_tasks: Vec::new(),
            request: None,
            list: None,
        };
        self.dispatch(session, seen, common, caller, dispatch).await
    }

    async fn modern(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &mut headers::Common<'_>,
        caller: &Caller,
        bytes: &Bytes,
        message: &Message<'_>,
    ) -> Result<(), Stop> {
        self.check_message(seen, common, caller, bytes, message, true).await?;
        let method = message.method_name();
        if method == "server/discover"
            && let Some(entry) = caller.route.server.discover()
        {
            let id = message.id.as_ref().map_or("null", |id| id.as_str());
            return self.answer_locally(session, seen, common, with_id(&entry.result, id)).await;
        }
        let handles = self.open_handles(caller, message)?;
        let body = match handles.edits {
            edits if edits.is_empty() => bytes.clone(),
            mut edits => splice(bytes, &mut edits).map_err(|e| Failure::internal(e.to_string()))?.into(),
        };
        let dispatch = Dispatch {
            method: Method::POST,
            body,
            sort: Sort::of(message),
            stay: handles.target.map_or(Stay::Anywhere, |(target, what)| Stay::Target(target, what)),
            name_header: handles.name_header,
            known_tasks: handles.known_tasks,
            request: Some(message),
            list: self.list_to_filter(caller, message),
        };
        self.dispatch(session, seen, common, caller, dispatch).await
    }

    #[allow(clippy::too_many_arguments, reason = "the facts of one request, each with its own life")]
    async fn legacy(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &mut headers::Common<'_>,
        caller: &Caller,
        bytes: &Bytes,
        body: &Body<'_>,
        presented: Option<Session>,
    ) -> Result<(), Stop> {
        for message in body.messages() {
            self.check_message(seen, common, caller, bytes, message, false).await?;
        }
        let (request, list, sort) = match body {
            Body::One(message) => (Some(message), self.list_to_filter(caller, message), Sort::of(message)),
            Body::Batch(messages) => {
                if messages.iter().any(|m| self.list_to_filter(caller, m).is_some()) {
                    return Err(Failure::refused_batch().into());
                }
                let answered = messages.iter().any(|m| m.kind == Kind::Request);
                (None, None, if answered { Sort::Call } else { Sort::OneWay })
            }
        };
        if let (Some(session), Some(message)) = (&presented, request) {
            note_state(session, message);
        }
        let dispatch = Dispatch {
            method: Method::POST,
            body: bytes.clone(),
            sort,
            stay: presented.map_or(Stay::Anywhere, Stay::Session),
            name_header: None,
            known_tasks: Vec::new(),
            request,
            list,
        };
        self.dispatch(session, seen, common, caller, dispatch).await
    }

    async fn answer_locally(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &headers::Common<'_>,
        body: Vec<u8>,
    ) -> Result<(), Stop> {
        let mut header = headers::response(StatusCode::OK, 6);
        let json = HeaderValue::from_static("application/json");
        header.headers.insert(http::header::CONTENT_TYPE, json);
        self.send_own(session, seen, common, (header, body.into())).await
    }
}

fn note_message(seen: &mut Observation<'_>, bytes: &Bytes, message: &Message<'_>) {
    let method = message.method_name();
    seen.method = match message.kind {
        Kind::Response(_) => telemetry::Method::Response,
        Kind::Notification | Kind::Request => telemetry::Method::from_rpc(method),
    };
    if !method.is_empty() {
        seen.rpc_method = Some(clip(method, LOGGED_NAME).into());
    }
    seen.id = message.id.as_ref().map(|id| RawId::new(bytes, id.range()));
    if let (Some(sampler), Some(arguments)) = (seen.sampler(), &message.params.arguments)
        && sampler.keeps_arguments()
        && arguments.range().len() <= telemetry::MAX_SAMPLED_ARGUMENTS
    {
        seen.arguments = Some(RawId::new(bytes, arguments.range()));
    }
    let name = item_of(message).name();
    if !name.is_empty() {
        seen.name = Some(clip(name, LOGGED_NAME).into());
    }
}

/// What has to be repeated to a server that lost the session.
fn note_state(session: &Session, message: &Message<'_>) {
    let params = &message.params;
    match message.method_name() {
        "logging/setLevel" => {
            if let Some(level) = params.level.as_deref().and_then(LogLevel::parse) {
                session.record.set_log_level(level);
            }
        }
        "resources/subscribe" => {
            if let Some(uri) = params.uri.as_deref() {
                // Past the bound a subscription still works; it is only not repeated after a recovery.
                let _ = session.record.subscribe(uri);
            }
        }
        "resources/unsubscribe" => {
            if let Some(uri) = params.uri.as_deref() {
                session.record.unsubscribe(uri);
            }
        }
        _ => {}
    }
}

fn body_facts<'m>(body: &'m Body<'_>) -> classify::Body<'m> {
    let Body::One(message) = body else { return classify::Body::Batch };
    let kind = match message.kind {
        Kind::Notification => classify::Kind::Notification,
        Kind::Request => classify::Kind::Request,
        Kind::Response(_) => classify::Kind::Response,
    };
    let params = &message.params;
    classify::Body::Message(classify::Message {
        kind,
        method: message.method_name(),
        name: params.name.as_deref(),
        uri: params.uri.as_deref(),
        task_id: params.task_id.as_deref(),
        meta_version: params.meta.protocol_version.as_deref(),
        client_capabilities: params.meta.client_capabilities.is_some(),
        init_version: params.protocol_version.as_deref(),
    })
}
