//! Canaries: try a revision on a share of callers or replicas before it becomes the head.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::{Conditional, Path};
use super::{Api, When};
use crate::base::TenantId;
use crate::canary::{Figures, Kind, Rules, Share, Sides};
use crate::control::etag::{self, Precondition};
use crate::control::extract::{Caller, Json, Params, Reason};
use crate::control::gate::Gated as _;
use crate::control::problem::{FieldError, Problem};
use crate::control::trail::note;
use crate::source::canary::{self, CanaryError, Candidate, Start, Wish};
use crate::store::Canary;

/// Canaries of one page.
const MAX_LIST: u32 = 100;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(show_canary))
        .operation(routes!(list_canaries))
        .operation(routes!(start_canary))
        .operation(routes!(share_canary))
        .operation(routes!(promote_canary))
        .operation(routes!(abort_canary))
}

/// A canary.
#[derive(Serialize, ToSchema)]
struct CanaryView {
    /// What the choice of callers follows from.
    id: String,
    /// `running`, `promoted`, `rolled_back` or `aborted`.
    state: String,
    /// The head that it is compared with.
    base: i64,
    /// The revision that is tried.
    candidate: i64,
    /// What the share is of: `principals` or `replicas`.
    kind: String,
    /// The share that holds now, in per cent.
    share: String,
    /// A share that holds from a time on: all replicas know of it before.
    next_share: Option<NextShare>,
    /// When it ends, and how.
    rules: RulesView,
    started_by: String,
    /// Why, in their words.
    reason: String,
    started: When,
    /// When it is promoted if it does well and `auto_promote` is set.
    hold_until: When,
    /// When it is rolled back unless it was promoted.
    deadline: When,
    ended: Option<When>,
    ended_by: Option<String>,
    end_reason: Option<String>,
    /// The revision that the candidate was published as.
    promoted: Option<i64>,
    /// Calls of those who are served the head, on all replicas. A second or two old.
    base_calls: FiguresView,
    /// Calls of those who are served the candidate.
    candidate_calls: FiguresView,
}

/// A share to come.
#[derive(Serialize, ToSchema)]
struct NextShare {
    /// In per cent.
    share: String,
    /// From when on it holds.
    from: When,
}

/// When a canary ends.
#[derive(Serialize, ToSchema)]
struct RulesView {
    /// How far the candidate's error rate may be above the base's, in per cent.
    max_error_rise: String,
    /// How far its rate of refusals may be; null: refusals end nothing.
    max_denial_rise: Option<String>,
    /// How many times the base's 95th percentile of latency its own may be; null: latency ends nothing.
    max_latency_ratio: Option<f64>,
    /// Calls of the candidate before anything is judged.
    min_calls: u64,
    /// The time that rates are taken over, besides the whole of the canary.
    window_seconds: u64,
    /// Whether it is promoted when it did well for as long as it has to.
    auto_promote: bool,
}

/// Calls of one side.
#[derive(Serialize, ToSchema)]
struct FiguresView {
    calls: u64,
    /// What we or the server failed.
    errors: u64,
    /// What we refused.
    denied: u64,
    error_rate: f64,
    /// Latencies in milliseconds, exact to 12.5 %; null without calls.
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// Canaries, the latest first.
#[derive(Serialize, ToSchema)]
struct CanaryList {
    items: Vec<CanaryView>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListCanaries {
    /// How many, 20 unless given.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// What is to be tried, on whom, and for how long.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCanary {
    /// The candidate, YAML or JSON as text. It becomes a revision that is not the head.
    document: Option<String>,
    /// Instead: a revision that is there.
    revision: Option<i64>,
    /// A share of callers, such as `10%`: by a hash of their stable ids, never by request.
    principals: Option<String>,
    /// Instead: a share of replicas. The store must not be the embedded one, and at least two have to live.
    replicas: Option<String>,
    /// `2%` unless given.
    max_error_rise: Option<String>,
    /// Unless given, refusals end nothing.
    max_denial_rise: Option<String>,
    /// 2 unless given; 0: latency ends nothing.
    max_latency_ratio: Option<f64>,
    /// 50 unless given.
    min_calls: Option<u64>,
    /// 60 unless given, at most 3600.
    window_seconds: Option<u64>,
    /// 600 unless given.
    hold_seconds: Option<u64>,
    /// A day unless given, at most 30 days.
    deadline_seconds: Option<u64>,
    /// Promote by itself when it did well for `hold_seconds`.
    #[serde(default)]
    auto_promote: bool,
}

/// Another share.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewShare {
    /// In per cent, such as `50%`. A larger one moves nobody from the candidate back to the head.
    share: String,
}

/// The canary of a tenant
///
/// The one that runs, or else the last one. `ETag` changes with its state and share.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/canary", tag = "canary", params(Path),
    responses((status = 200, description = "The canary.", body = CanaryView)))]
async fn show_canary(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
) -> Result<Response, Problem> {
    let none = || Problem::new(StatusCode::NOT_FOUND, "no_canary", "nothing was tried for this tenant yet");
    let latest = api.canaries()?.list(&tenant, 1).await?.pop().ok_or_else(none)?;
    answer(&api, StatusCode::OK, &latest).await
}

/// The canaries of a tenant
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/canaries", tag = "canary", params(Path, ListCanaries),
    responses((status = 200, description = "The latest first.", body = CanaryList)))]
async fn list_canaries(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<ListCanaries>,
) -> Result<Answer<CanaryList>, Problem> {
    let limit = match ask.limit.unwrap_or(20) {
        limit @ 1..=MAX_LIST => limit,
        _ => return Err(Problem::parameter("limit", format!("it must be from 1 to {MAX_LIST}"))),
    };
    let mut items = Vec::new();
    for canary in api.canaries()?.list(&tenant, limit).await? {
        items.push(view(&api, &canary).await?);
    }
    Ok(Answer(CanaryList { items }))
}

/// Start a canary
///
/// The candidate is compiled first; what does not compile is refused and nothing is stored. `If-Match` with the ETag of
/// the document is about the head that it is compared with. One runs at a time. If the head moves, it is aborted.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/canary", tag = "canary", params(Path, Conditional),
    request_body = NewCanary,
    responses((status = 201, description = "It runs.", body = CanaryView),
        (status = 409, description = "Another one runs, or there is nothing to try it on.")))]
async fn start_canary(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
    Json(body): Json<NewCanary>,
) -> Result<Response, Problem> {
    let rules = rules(&body)?;
    let (kind, share) = match (&body.principals, &body.replicas) {
        (Some(text), None) => (Kind::Principals, share(text, "/principals")?),
        (None, Some(text)) => (Kind::Replicas, share(text, "/replicas")?),
        _ => return Err(one_of("/principals", "either `principals` or `replicas` says on whom it is tried")),
    };
    let candidate = match (body.document, body.revision) {
        (Some(document), None) => Candidate::Document(document.into_bytes()),
        (None, Some(revision)) => Candidate::Revision(revision),
        _ => return Err(one_of("/document", "either `document` or `revision` says what is tried")),
    };
    let start = Start {
        tenant,
        candidate,
        kind,
        share,
        rules,
        author: actor.id.to_string(),
        reason: reason.0.unwrap_or_default(),
        if_revision: match condition {
            Precondition::New => Some(0),
            condition => condition.revision()?.and_then(|n| i64::try_from(n).ok()),
        },
    };
    let started = api.canaries()?.start(start).await?;
    answer(&api, StatusCode::CREATED, &started).await
}

/// Change the share of the canary
///
/// Of callers only: which replicas are tried on is chosen at the start.
#[utoipa::path(patch, path = "/api/v1/tenants/{tenant}/canary", tag = "canary", params(Path, Conditional),
    request_body = NewShare, responses((status = 200, description = "As it is now.", body = CanaryView)))]
async fn share_canary(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    condition: Precondition,
    Json(body): Json<NewShare>,
) -> Result<Response, Problem> {
    let share = share(&body.share, "/share")?;
    let seen = running(&api, &tenant, &condition).await?;
    let changed = api.canaries()?.share(&seen, share, if_share(&condition, &seen)).await;
    let changed = told(&api, &tenant, &condition, changed).await?;
    answer(&api, StatusCode::OK, &changed).await
}

/// Promote the canary
///
/// Its candidate is published in place of its base. 412 if the head has moved meanwhile.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/canary/promote", tag = "canary", params(Path, Conditional),
    responses((status = 200, description = "It has ended.", body = CanaryView)))]
async fn promote_canary(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
) -> Result<Response, Problem> {
    end(&api, &tenant, Wish::Promote, &actor.id, &condition, reason).await
}

/// End the canary
///
/// Everybody is served the head again.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/canary", tag = "canary", params(Path, Conditional),
    responses((status = 200, description = "It has ended.", body = CanaryView)))]
async fn abort_canary(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Caller(actor): Caller,
    condition: Precondition,
    reason: Reason,
) -> Result<Response, Problem> {
    end(&api, &tenant, Wish::Abort, &actor.id, &condition, reason).await
}

async fn end(
    api: &Api,
    tenant: &TenantId,
    wish: Wish,
    by: &str,
    condition: &Precondition,
    reason: Reason,
) -> Result<Response, Problem> {
    let seen = running(api, tenant, condition).await?;
    let reason = reason.0.unwrap_or_default();
    let ended = api.canaries()?.end(&seen, wish, by, &reason, if_share(condition, &seen)).await;
    let ended = told(api, tenant, condition, ended).await?;
    answer(api, StatusCode::OK, &ended).await
}

/// The one that runs, if it is what the caller has seen.
async fn running(api: &Api, tenant: &TenantId, condition: &Precondition) -> Result<Canary, Problem> {
    let running = api.canaries()?.running(tenant).await?;
    condition.check(Some(&tag(&running)))?;
    Ok(running)
}

/// The share that it must still have when it is changed.
fn if_share(condition: &Precondition, seen: &Canary) -> Option<i32> {
    matches!(condition, Precondition::Match(_)).then_some(seen.share)
}

/// Who came too late is told what there is now.
async fn told(
    api: &Api,
    tenant: &TenantId,
    condition: &Precondition,
    done: Result<Canary, CanaryError>,
) -> Result<Canary, Problem> {
    if matches!(done, Err(CanaryError::Changed)) {
        running(api, tenant, condition).await?;
    }
    Ok(done?)
}

fn tag(canary: &Canary) -> String {
    etag::of_content(&(canary.id.to_string(), canary.share, &canary.state))
}

async fn answer(api: &Api, status: StatusCode, canary: &Canary) -> Result<Response, Problem> {
    note(|notes| {
        notes.object = Some(canary.id.to_string());
        notes.revision = canary.promoted.map(i64::unsigned_abs);
        let share = canary::share_at(canary, canary.share_at);
        notes.changes = vec![
            format!("state: {}", canary.state),
            format!("candidate: revision {}", canary.candidate),
            format!("share: {share} of {}", canary.kind),
        ];
    });
    Ok((status, [etag::header(&tag(canary))], Answer(view(api, canary).await?)).into_response())
}

async fn view(api: &Api, canary: &Canary) -> Result<CanaryView, Problem> {
    let now = api.store()?.now();
    let Sides { base, candidate } = api.canaries()?.figures(canary).await?;
    let rules = canary::rules_of(canary);
    let hold = std::time::Duration::from_secs(rules.hold);
    let next = (canary.state == "running" && canary.share_at > now).then(|| NextShare {
        share: canary::share_at(canary, canary.share_at).to_string(),
        from: canary.share_at.into(),
    });
    Ok(CanaryView {
        id: canary.id.to_string(),
        state: canary.state.clone(),
        base: canary.base,
        candidate: canary.candidate,
        kind: canary.kind.clone(),
        share: canary::share_at(canary, now).to_string(),
        next_share: next,
        started_by: canary.started_by.clone(),
        reason: canary.reason.clone(),
        started: canary.started_at.into(),
        hold_until: canary.started_at.plus(hold).into(),
        deadline: canary.deadline.into(),
        ended: canary.ended_at.map(When::from),
        ended_by: canary.ended_by.clone(),
        end_reason: canary.end_reason.clone(),
        promoted: canary.promoted,
        base_calls: figures(&base),
        candidate_calls: figures(&candidate),
        rules: RulesView {
            max_error_rise: rules.max_error_rise.to_string(),
            max_denial_rise: rules.max_denial_rise.map(|share| share.to_string()),
            max_latency_ratio: rules.max_latency_ratio,
            min_calls: rules.min_calls,
            window_seconds: rules.window,
            auto_promote: rules.auto_promote,
        },
    })
}

fn figures(figures: &Figures) -> FiguresView {
    let ms = |part| figures.quantile(part).map(|took| took.as_micros() as f64 / 1000.0);
    FiguresView {
        calls: figures.calls,
        errors: figures.errors,
        denied: figures.denied,
        error_rate: figures.error_rate(),
        p50_ms: ms(0.5),
        p95_ms: ms(0.95),
        p99_ms: ms(0.99),
    }
}

fn rules(body: &NewCanary) -> Result<Rules, Problem> {
    let defaults = Rules::default();
    let optional = |text: &Option<String>, pointer| text.as_deref().map(|t| share(t, pointer)).transpose();
    let rules = Rules {
        max_error_rise: optional(&body.max_error_rise, "/max_error_rise")?.unwrap_or(defaults.max_error_rise),
        max_denial_rise: optional(&body.max_denial_rise, "/max_denial_rise")?,
        max_latency_ratio: match body.max_latency_ratio {
            None => defaults.max_latency_ratio,
            Some(ratio) => Some(ratio).filter(|ratio| *ratio != 0.0),
        },
        min_calls: body.min_calls.unwrap_or(defaults.min_calls),
        window: body.window_seconds.unwrap_or(defaults.window),
        hold: body.hold_seconds.unwrap_or(defaults.hold),
        deadline: body.deadline_seconds.unwrap_or(defaults.deadline),
        auto_promote: body.auto_promote,
    };
    rules.check().map_err(|error| Problem::invalid([FieldError::new("", error.to_string())]))?;
    Ok(rules)
}

fn share(text: &str, pointer: &str) -> Result<Share, Problem> {
    text.parse().map_err(|error: String| Problem::invalid([FieldError::new(pointer, error)]))
}

fn one_of(pointer: &str, rule: &str) -> Problem {
    Problem::invalid([FieldError::new(pointer, rule)])
}

impl From<CanaryError> for Problem {
    fn from(error: CanaryError) -> Self {
        match error {
            CanaryError::Changed => Problem::precondition_failed(error.to_string()),
            CanaryError::None => Problem::conflict("no_canary", error.to_string()),
            CanaryError::Running(_) => Problem::conflict("canary_running", error.to_string()),
            CanaryError::NoBase | CanaryError::Same => Problem::conflict("nothing_to_try", error.to_string()),
            CanaryError::AllReplicas | CanaryError::Embedded | CanaryError::Replicas(_) => {
                Problem::conflict("too_few_replicas", error.to_string())
            }
            CanaryError::Fixed => Problem::conflict("share_is_fixed", error.to_string()),
            CanaryError::Rules(_) => Problem::invalid([FieldError::new("", error.to_string())]),
            CanaryError::Publish(error) => error.into(),
        }
    }
}
