//! The audit log on its way out, and what is erased of it.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::audit::filter;
use super::in_tenant::{Path, Repeatable};
use super::people::MAX_PRINCIPAL;
use super::reach::{Makers, may_act_on};
use crate::base::TenantId;
use crate::control::actor::is_reserved;
use crate::control::extract::{Caller, Json, Params};
use crate::control::gate::Gated as _;
use crate::control::permission::{Permission, holds};
use crate::control::problem::{FieldError, Problem};
use crate::control::shares::Shares;
use crate::control::trail::note;
use crate::store::{AuditFilter, ExportFormat, ExportSink, erased_name, export};

/// Exports at once, of all tenants and of one. Each holds a connection of the store for as long as it takes, so they have
/// at most half of those.
const MAX_EXPORTS: usize = 4;
const SHARE: u32 = 1;
/// When to come again, in seconds.
const AGAIN: u64 = 30;
/// Pieces that wait for a slow reader.
const PIECES: usize = 2;
/// The longest that a reader may take for one piece.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest that an export may take.
const LONGEST: Duration = Duration::from_secs(900);

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(export_audit)).operation(routes!(erase_audit))
}

/// Bounds exports from a store with so many connections.
pub(super) fn shares(connections: u32) -> Shares {
    let places = (connections as usize / 2).clamp(1, MAX_EXPORTS);
    Shares::new("exports of the audit log", places, SHARE, AGAIN)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Ask {
    /// `jsonl`, which can be verified, `csv` or `cef`; `jsonl` unless given.
    format: Option<String>,
    /// From this time on.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time.
    #[param(format = DateTime)]
    to: Option<String>,
    /// `data` or `control`.
    class: Option<String>,
    /// The caller.
    principal: Option<String>,
    /// The route.
    route: Option<String>,
    /// The server.
    server: Option<String>,
    /// The tool, prompt, resource or object.
    name: Option<String>,
    /// How it ended.
    outcome: Option<String>,
}

/// Export the audit log
///
/// JSON lines hold every event of the time asked for, those that the filter leaves out as commitments, and end with a
/// signed manifest: `tollgate audit verify` proves that nothing is missing or changed. CSV and CEF hold what the filter
/// lets through. Events with recorded bodies are commitments for whoever is no auditor. The answer is a stream of at most
/// 15 minutes; one that breaks off has no manifest.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/audit/export", tag = "audit", params(Path, Ask),
    responses((status = 200, description = "Events, in the order of their chains.", content_type = "application/jsonl", body = String),
        (status = 409, description = "The audit is off here, so there is no key to sign with."),
        (status = 429, description = "The tenant has an export under way, or as many as can be are."),
        (status = 503, description = "The key to sign with cannot be opened.")))]
async fn export_audit(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Caller(actor): Caller,
    Params(ask): Params<Ask>,
) -> Result<Response, Problem> {
    let name = ask.format.as_deref().unwrap_or("jsonl");
    let Some(format) = ExportFormat::parse(name) else {
        let error =
            FieldError::new("?format", "there is no such format").expecting("`jsonl`, `csv` or `cef`");
        return Err(Problem::parameter("format", "").replacing_errors([error]));
    };
    let filter = filter(
        [ask.from.as_deref(), ask.to.as_deref()],
        AuditFilter {
            class: ask.class,
            principal: ask.principal,
            route: ask.route,
            server: ask.server,
            name: ask.name,
            outcome: ask.outcome,
            ..AuditFilter::default()
        },
    )?;
    let key = api.audit_key()?.clone();
    let place = api.exports().place(&tenant).await?;
    let bodies = holds(&actor, Permission::AuditBodies);
    let store = api.store()?.clone();
    // What cannot be reached is better said before the first byte.
    store.ping().await?;
    key.get().await?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let disposition = format!("attachment; filename=\"audit-{tenant}.{name}\"");
    tokio::spawn(async move {
        let mut sink = ToBody(sender.clone());
        let work = async {
            let key = key.get().await.map_err(|e| e.to_string())?;
            let done = export(&store, key, &tenant, &filter, format, bodies, &mut sink).await;
            done.map_err(|e| e.to_string())
        };
        let failed = match tokio::time::timeout(LONGEST, work).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some("it took too long".to_owned()),
        };
        if let Some(error) = failed {
            tracing::warn!(event = "audit_export_ended_early", %tenant, %error);
            // The body breaks off, so that nobody takes it for a whole one.
            let _ = sender.try_send(Err(io::Error::other("the export ended early")));
        }
        drop(place);
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let kind = HeaderValue::from_static(format.content_type());
    let disposition = HeaderValue::try_from(disposition).map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, disposition)], Body::from_stream(pieces))
        .into_response())
}

/// Hands pieces to the body of an answer.
struct ToBody(mpsc::Sender<Result<Bytes, io::Error>>);

impl ExportSink for ToBody {
    type Error = &'static str;

    async fn take(&mut self, piece: Vec<u8>) -> Result<(), &'static str> {
        if piece.is_empty() {
            return Ok(());
        }
        match self.0.send_timeout(Ok(piece.into()), PATIENCE).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err("the reader has gone"),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err("the reader is too slow"),
        }
    }
}

/// Whose events are to be erased.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Erasure {
    /// The whole principal id, such as `corp|alice`.
    #[schema(min_length = 1, max_length = 256)]
    principal: String,
}

/// What was erased.
#[derive(Serialize, ToSchema)]
struct Erased {
    /// How many events.
    events: u64,
    /// How many samples of requests, those that what-if uses.
    samples: u64,
    /// How many rows of usage are nobody's now, by minute, hour and day.
    usage: u64,
    /// Events of which classes: `data`, and for who runs the platform `control`.
    classes: Vec<&'static str>,
    /// What the record of this calls whose they were.
    erased: String,
}

/// Erase what events of a principal say
///
/// Payload and salt of every event that they caused are removed. Numbers, times and commitments stay, so that the log can
/// still be verified; exports show the events as erased. Their samples go, and in usage their calls become those of
/// `[erased]`. Events of before that reach the store later are erased when they do, for 90 days: soon in the first hour, within
/// an hour later. What the principal does from now on is recorded as before.
///
/// Erasure is for personal data of callers, and takes no evidence away. What was done to the configuration, to credentials and
/// to the log stays (class `control`), unless who runs the platform asks, with a token of the installation or a key of which it
/// is known who made it. Nobody erases their own events, those of whoever made the key that they use, those of somebody who was
/// given more than they have, those of a token of the installation, or those of commands that work on the store itself.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/audit/erase", tag = "audit", params(Path, Repeatable),
    request_body = Erasure,
    responses((status = 200, description = "Erased.", body = Erased),
        (status = 403, description = "They are not this caller's to erase.")))]
async fn erase_audit(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Caller(actor): Caller,
    Json(erasure): Json<Erasure>,
) -> Result<Answer<Erased>, Problem> {
    let whose = erasure.principal.as_str();
    if !(1..=MAX_PRINCIPAL).contains(&whose.len()) {
        let error = FieldError::new("/principal", format!("it must have 1 to {MAX_PRINCIPAL} bytes"));
        return Err(Problem::invalid([error]));
    }
    if *whose == *actor.id {
        return Err(Problem::forbidden("nobody erases what they did themselves"));
    }
    if is_reserved(whose) {
        return Err(Problem::forbidden(
            "what was done with a token of the installation, or by a command on the store itself, is not erased",
        ));
    }
    let store = api.store()?;
    may_act_on(&actor, &store.tenant(&tenant), whose).await?;
    let makers = Makers::of(&actor, store).await?;
    if makers.contains(whose) {
        return Err(Problem::forbidden("nobody erases what was done by whoever made the key that they use"));
    }
    let all = actor.is_platform() && makers.whole;
    let (erased, classes) =
        (erased_name(&tenant, whose), if all { vec!["data", "control"] } else { vec!["data"] });
    // Before it is done: the record says whose they were also if the request is given up meanwhile.
    note(|notes| notes.changes.push(format!("principal: {erased}")));
    let done = match all {
        true => store.platform().audit_erase(&tenant, whose).await?,
        false => store.platform().audit_erase_data(&tenant, whose).await?,
    };
    let (events, samples, usage) = (done.events, done.samples, done.usage);
    note(|notes| {
        let much = format!("erased: {events} events, {samples} samples, {usage} rows of usage");
        notes.changes.extend([much, format!("classes: {}", classes.join(", "))]);
    });
    tracing::info!(event = "audit_erased", %tenant, events, samples, usage, author = &*actor.id, whose = erased);
    Ok(Answer(Erased { events, samples, usage, classes, erased }))
}
