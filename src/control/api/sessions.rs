//! Sessions and streams, wherever they are at home.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::Path;
use super::{Api, When};
use crate::base::TenantId;
use crate::control::extract::{At, Params};
use crate::control::fleet::{Closed, Missing};
use crate::control::gate::Gated as _;
use crate::control::internal::Listing;
use crate::control::page::{Fingerprint, Slice};
use crate::control::problem::Problem;
use crate::store::Time;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_sessions))
        .operation(routes!(close_session))
        .operation(routes!(list_streams))
        .operation(routes!(close_stream))
}

/// Which of them.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Items of a page, 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the one before it.
    #[param(max_length = 2048)]
    cursor: Option<String>,
    /// Only those of this principal.
    #[param(max_length = 512)]
    principal: Option<String>,
}

/// A replica whose part is not in the answer.
#[derive(Serialize, ToSchema)]
pub(super) struct MissingReplica {
    /// Which, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<String>,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// Why it could not be asked.
    why: String,
}

impl From<Missing> for MissingReplica {
    fn from(missing: Missing) -> Self {
        let (replica, boot) = missing.home.map(|home| (home.replica, home.boot)).unzip();
        Self { replica, boot, why: missing.why }
    }
}

/// A session of an MCP client.
#[derive(Serialize, ToSchema)]
struct SessionEntry {
    /// Names it here. It is not the session id of the protocol, and cannot be used as one.
    id: String,
    /// The replica it is at home in: stays the same over restarts.
    replica: String,
    /// The process.
    boot: String,
    /// On which route.
    route: String,
    /// Who opened it.
    principal: String,
    /// The revision of MCP that was agreed.
    protocol: String,
    /// When it began.
    created: When,
    /// When it was used last.
    last_seen: When,
    /// Open streams of its client.
    streams: u32,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
struct SessionPage {
    /// The sessions, by id.
    items: Vec<SessionEntry>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Replicas whose sessions are not in it.
    missing: Vec<MissingReplica>,
}

/// A long-lived stream.
#[derive(Serialize, ToSchema)]
struct StreamEntry {
    /// Its number in its process.
    id: u64,
    /// Its replica: stays the same over restarts.
    replica: String,
    /// Its process.
    boot: String,
    /// On which route.
    route: String,
    /// Who listens.
    principal: String,
    /// Its session, if it belongs to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Since when it is open.
    since: When,
}

/// A page of streams.
#[derive(Serialize, ToSchema)]
struct StreamPage {
    /// The streams, by process and id.
    items: Vec<StreamEntry>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Replicas whose streams are not in it.
    missing: Vec<MissingReplica>,
}

/// A session in a tenant.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct OneSession {
    /// Whose.
    #[param(max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    tenant: String,
    /// Its id, as listed.
    #[param(max_length = 32, pattern = "^[0-9a-f]{32}$")]
    session: String,
}

/// A stream in a tenant.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct OneStream {
    /// Whose.
    #[param(max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    tenant: String,
    /// Its `boot` or `replica`, as listed.
    #[param(max_length = 128)]
    replica: String,
    /// Its number, as listed.
    #[param(max_length = 20, pattern = "^[0-9]+$")]
    stream: String,
}

/// Sessions of a tenant
///
/// Those of all replicas that can be asked; the others are named in `missing`.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/sessions", tag = "sessions", params(Path, Which),
    responses((status = 200, description = "Sessions by id.", body = SessionPage)))]
async fn list_sessions(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Which>,
) -> Result<Answer<SessionPage>, Problem> {
    let (slice, listing) = asked("list_sessions", tenant.as_str(), &ask, 1)?;
    let after = slice.after.as_ref().and_then(|keys| Some(keys[0].as_str()?.to_owned()));
    let gathered = api.fleet()?.sessions(&Listing { after, ..listing }).await;
    let page = slice.page(gathered.found, |(_, session)| vec![json!(session.serial)]);
    let items = page.items.into_iter().map(|(home, session)| SessionEntry {
        id: session.serial,
        replica: home.replica,
        boot: home.boot,
        route: session.route,
        principal: session.principal,
        protocol: session.version,
        created: when(session.created),
        last_seen: when(session.last_seen),
        streams: session.streams,
    });
    Ok(Answer(SessionPage {
        items: items.collect(),
        next_cursor: page.next_cursor,
        missing: named(gathered.missing),
    }))
}

/// Close a session
///
/// Its streams end, and its id is unknown (404) at every replica from then on; the MCP server is told. The client has to
/// begin a new one.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/sessions/{session}", tag = "sessions", params(OneSession),
    responses((status = 204, description = "It has ended."), (status = 404, description = "No replica has it.")))]
async fn close_session(State(api): State<Api>, At(path): At<OneSession>) -> Result<StatusCode, Problem> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if path.session.len() != 32 || !path.session.bytes().all(hex) {
        return Err(Problem::not_found());
    }
    ended(api.fleet()?.close_session(&path.tenant, &path.session).await)
}

/// Streams of a tenant
///
/// Open event streams of clients, at all replicas that can be asked; the others are named in `missing`.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/streams", tag = "sessions", params(Path, Which),
    responses((status = 200, description = "Streams by process and id.", body = StreamPage)))]
async fn list_streams(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Which>,
) -> Result<Answer<StreamPage>, Problem> {
    let (slice, listing) = asked("list_streams", tenant.as_str(), &ask, 2)?;
    let after = slice.after.as_ref().and_then(|keys| Some((keys[0].as_str()?, keys[1].as_u64()?)));
    let gathered = api.fleet()?.streams(&listing, after).await;
    let page = slice.page(gathered.found, |(home, stream)| vec![json!(home.boot), json!(stream.id)]);
    let items = page.items.into_iter().map(|(home, stream)| StreamEntry {
        id: stream.id,
        replica: home.replica,
        boot: home.boot,
        route: stream.route,
        principal: stream.principal,
        session: stream.session,
        since: when(stream.since),
    });
    Ok(Answer(StreamPage {
        items: items.collect(),
        next_cursor: page.next_cursor,
        missing: named(gathered.missing),
    }))
}

/// Close a stream
///
/// It ends politely; its session, if it has one, goes on, and its client may open another.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/streams/{replica}/{stream}", tag = "sessions", params(OneStream),
    responses((status = 204, description = "It has ended."), (status = 404, description = "That replica has none of it.")))]
async fn close_stream(State(api): State<Api>, At(path): At<OneStream>) -> Result<StatusCode, Problem> {
    let id = path.stream.parse().map_err(|_| Problem::not_found())?;
    ended(api.fleet()?.close_stream(&path.replica, &path.tenant, id).await)
}

/// The page that is asked for, and what to ask replicas: one more than the page has, to know whether there is more.
fn asked(list: &str, tenant: &str, ask: &Which, keys: usize) -> Result<(Slice, Listing), Problem> {
    let principal = ask.principal.as_deref().unwrap_or_default();
    let slice =
        Slice::read(ask.limit, ask.cursor.as_deref(), Fingerprint::of(&[list, tenant, principal]), keys)?;
    let listing = Listing {
        tenant: Some(tenant.to_owned()),
        principal: ask.principal.clone(),
        after: None,
        limit: Some(slice.limit + 1),
    };
    Ok((slice, listing))
}

fn ended(closed: Closed) -> Result<StatusCode, Problem> {
    match closed {
        Closed::Done => Ok(StatusCode::NO_CONTENT),
        Closed::Unknown => Err(Problem::not_found()),
        Closed::Unreachable(missing) => {
            let why: Vec<String> = missing
                .into_iter()
                .map(|m| m.home.map_or_else(|| m.why.clone(), |home| format!("{}: {}", home.replica, m.why)))
                .collect();
            Err(Problem::unavailable(
                "replicas_missing",
                format!("no replica that could be asked has it, but these could not: {}", why.join("; ")),
            ))
        }
    }
}

fn named(missing: Vec<Missing>) -> Vec<MissingReplica> {
    missing.into_iter().map(MissingReplica::from).collect()
}

fn when(secs: u64) -> When {
    Time::from_micros(i64::try_from(secs).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000)).into()
}
