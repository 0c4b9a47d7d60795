//! Questions about a document before it goes live: what recorded requests it would treat otherwise (what-if), and what it
//! allows over every request there could be (proof).
//!
//! Both compile the document apart from everything that is served and run on threads for blocking work, [`AT_ONCE`] at a
//! time in a process and [`SHARE`] of one tenant; others wait in line for a moment, and are then told to come again. A
//! question whose caller has gone away is worked through all the same, and keeps its place until it is done.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::in_tenant::Path;
use crate::base::{Scope, TenantId};
use crate::control::extract::Json;
use crate::control::gate::Gated as _;
use crate::control::problem::{FieldError, Problem};
use crate::control::shares::Shares;
use crate::insight::proof::{self, Gate};
use crate::insight::whatif;
use crate::snapshot::Snapshot;

/// Questions that are worked on at the same time, of all tenants and of one.
const AT_ONCE: usize = 2;
const SHARE: u32 = 1;
/// When to come again, in seconds.
const AGAIN: u64 = 5;
/// Hours of recorded requests at most.
const MAX_HOURS: u32 = 168;
/// Minutes of routes that are replayed at most, the latest: some 120,000 requests as `samples` keeps them by default.
const MAX_MINUTES: u32 = 2_000;
/// Changes, or classes of requests, that an answer lists; it says how many there are.
const MAX_LISTED: usize = 1_000;
const LISTED: usize = 100;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(ask_whatif)).operation(routes!(ask_proof))
}

/// What to replay recorded requests against.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WhatifQuestion {
    /// The candidate, YAML or JSON as text.
    document: String,
    /// Requests of so many hours before now: 24 unless given, at most 168.
    hours: Option<u32>,
    /// What to compare with: the head, or what was recorded.
    #[serde(default)]
    baseline: Baseline,
    /// How many kinds of change are listed, the most frequent first: 100 unless given, at most 1000.
    max_changes: Option<usize>,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Baseline {
    #[default]
    Head,
    Recorded,
}

/// A question about what a document allows.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProofQuestion {
    /// `who_can_call`, `unauthenticated`, or `newly_allowed`: what the document allows that the head does not.
    question: Question,
    /// For `who_can_call`: a pattern of the tools' own names.
    tools: Option<String>,
    /// Only this route.
    route: Option<String>,
    /// The document that is asked about, YAML or JSON as text. Unless given, a revision, or else the head.
    document: Option<String>,
    /// The revision that is asked about.
    revision: Option<i64>,
    /// How many classes of requests are listed: 100 unless given, at most 1000.
    max_classes: Option<usize>,
}

#[derive(Clone, Copy, Deserialize, ToSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Question {
    NewlyAllowed,
    Unauthenticated,
    WhoCanCall,
}

/// Replay recorded requests against a document
///
/// Counts what would change: allowed or denied, by which rule, limits, route, server, targets; `left_open` are requests
/// that a rule cannot be evaluated for, because it reads what was not recorded. Lists are cut to `max_changes`;
/// `kinds_of_change`, `kinds_left_open` and `kinds_of_disagreement` say how many there are. `samples_cut` says that only
/// the latest were replayed.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/whatif", tag = "questions", params(Path),
    request_body = WhatifQuestion,
    responses((status = 200, description = "What would change.", body = Value),
        (status = 429, description = "A question of the tenant is being worked on, or as many as can be are.")))]
async fn ask_whatif(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Json(ask): Json<WhatifQuestion>,
) -> Result<Answer<Value>, Problem> {
    let hours = ask.hours.unwrap_or(24);
    if !(1..=MAX_HOURS).contains(&hours) {
        return Err(Problem::invalid([FieldError::new("/hours", format!("from 1 to {MAX_HOURS}"))]));
    }
    let most = listed(ask.max_changes, "/max_changes")?;
    let place = api.questions().place(&tenant).await?;
    let candidate = api.publisher()?.trial(&tenant, ask.document.as_bytes()).await?;
    let baseline = match ask.baseline {
        Baseline::Head => Some(head(&api, &tenant).await?),
        Baseline::Recorded => None,
    };
    let (text, cut) = api.store()?.latest_samples(&tenant, hours, MAX_MINUTES).await?;
    let work = move || {
        let _place = place;
        let samples = whatif::read(&text).map_err(|e| e.to_string())?;
        whatif::replay(&samples, baseline.as_ref(), &candidate).map_err(|e| e.to_string())
    };
    // What the store has was recorded by us: that it cannot be read is nobody else's fault.
    let report =
        tokio::task::spawn_blocking(work).await.map_err(Problem::internal)?.map_err(Problem::internal)?;
    let (kinds, doubts) = (report.changes.len(), report.disagreements.len());
    let open = report.left_open.len();
    let mut answer = serde_json::to_value(&report).map_err(Problem::internal)?;
    for list in ["changes", "left_open", "disagreements"] {
        if let Some(items) = answer[list].as_array_mut() {
            items.truncate(most);
        }
    }
    answer["kinds_of_change"] = kinds.into();
    answer["kinds_left_open"] = open.into();
    answer["kinds_of_disagreement"] = doubts.into();
    answer["samples_cut"] = cut.into();
    Ok(Answer(answer))
}

/// Ask what a document allows, over every request there could be
///
/// Exact over roles, tools and typed rules; conditions that had to be left open are named. `classes` of routes are cut to
/// `max_classes` in all; `classes_found` says how many there are.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/prove", tag = "questions", params(Path),
    request_body = ProofQuestion,
    responses((status = 200, description = "Classes of requests, by route.", body = Value),
        (status = 429, description = "A question of the tenant is being worked on, or as many as can be are.")))]
async fn ask_proof(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Json(ask): Json<ProofQuestion>,
) -> Result<Answer<Value>, Problem> {
    let most = listed(ask.max_classes, "/max_classes")?;
    if ask.document.is_some() && ask.revision.is_some() {
        return Err(Problem::invalid([FieldError::new(
            "/revision",
            "`document` and `revision` exclude each other",
        )]));
    }
    let tools = match (ask.question, ask.tools) {
        (Question::WhoCanCall, None) => {
            return Err(Problem::invalid([FieldError::new(
                "/tools",
                "`who_can_call` needs a pattern of tools",
            )]));
        }
        (Question::WhoCanCall, Some(tools)) => tools,
        (_, None) => String::new(),
        (_, Some(_)) => {
            return Err(Problem::invalid([FieldError::new("/tools", "only `who_can_call` is about tools")]));
        }
    };
    let place = api.questions().place(&tenant).await?;
    let publisher = api.publisher()?;
    let asked = match (ask.document, ask.revision) {
        (Some(document), _) => publisher.trial(&tenant, document.as_bytes()).await?,
        (None, Some(revision)) => {
            let scope = Scope::Tenant(tenant.clone());
            let content = publisher.show(&scope, revision).await?.content;
            publisher.trial(&tenant, &content).await?
        }
        (None, None) => head(&api, &tenant).await?,
    };
    let before = match ask.question {
        Question::NewlyAllowed => gates(&head(&api, &tenant).await?, None),
        _ => Vec::new(),
    };
    let gates = gates(&asked, ask.route.as_deref());
    if let (Some(route), true) = (&ask.route, gates.is_empty()) {
        let error = FieldError::new("/route", format!("the document has no route `{route}`"));
        return Err(Problem::invalid([error]));
    }
    let question = ask.question;
    let work = move || {
        let _place = place;
        match question {
            Question::NewlyAllowed => proof::newly_allowed(&before, &gates),
            Question::Unauthenticated => proof::unauthenticated(&gates),
            Question::WhoCanCall => proof::who_can_call(&gates, &tools),
        }
    };
    let answer = tokio::task::spawn_blocking(work).await.map_err(Problem::internal)?;
    let answer = answer.map_err(|error| match error {
        proof::Error::Contradiction { .. } => Problem::internal(error),
        proof::Error::Pattern(..) => Problem::invalid([FieldError::new("/tools", error.to_string())]),
        proof::Error::TooComplex(..) => Problem::conflict("too_complex", error.to_string()),
    })?;
    let mut answer = serde_json::to_value(&answer).map_err(Problem::internal)?;
    let mut found = 0;
    for route in answer["routes"].as_array_mut().into_iter().flatten() {
        if let Some(classes) = route["classes"].as_array_mut() {
            let room = most.saturating_sub(found);
            found += classes.len();
            classes.truncate(room);
        }
    }
    answer["classes_found"] = json!(found);
    Ok(Answer(answer))
}

async fn head(api: &Api, tenant: &TenantId) -> Result<Snapshot, Problem> {
    let publisher = api.publisher()?;
    let head = publisher.head(&Scope::Tenant(tenant.clone())).await?.ok_or_else(Problem::not_found)?;
    Ok(publisher.trial(tenant, &head.content).await?)
}

fn gates(snapshot: &Snapshot, route: Option<&str>) -> Vec<Gate> {
    let wanted = snapshot.routes().into_iter().filter(|r| route.is_none_or(|name| r.id.as_str() == name));
    wanted.map(|r| Gate::of(&r)).collect()
}

fn listed(asked: Option<usize>, pointer: &str) -> Result<usize, Problem> {
    match asked.unwrap_or(LISTED) {
        most if most <= MAX_LISTED => Ok(most),
        _ => Err(Problem::invalid([FieldError::new(pointer, format!("at most {MAX_LISTED}"))])),
    }
}

/// Bounds questions.
pub(super) fn shares() -> Shares {
    Shares::new("questions", AT_ONCE, SHARE, AGAIN)
}
