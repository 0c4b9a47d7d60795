//! What a configuration does with one recorded request.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::auth::{Source, SourceId};
use crate::base::{Clock, Principal};
use crate::limit::{self, Buckets, DEFAULT_MAX_BUCKETS, Incoming, is_exempt};
use crate::policy::{self, Field, Item, Outcome, Policy, When};
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::RequestSample;

/// A hundred years: samples may say any time, and limits count nanoseconds.
const MAX_SPAN_MS: u64 = 100 * 366 * 86_400_000;

/// How a request fares, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Fate {
    /// What happens: `allow`, or why not.
    pub verdict: Verdict,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    /// The server it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Arc<str>>,
    /// The server's targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Arc<str>>,
    /// The rule, the limit, or whatever else decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It goes to the server.
    Allow,
    /// The policy refuses it, or the method does not exist.
    Deny,
    /// A scope is missing.
    Forbidden,
    /// A limit refuses it.
    Limited,
    /// No route.
    NotFound,
    /// The caller is not let in.
    Unauthenticated,
    /// The sample does not hold what a rule reads.
    Undecided,
    /// It ended for a reason that no document decides.
    Other,
}

impl Verdict {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Forbidden => "forbidden",
            Verdict::Limited => "limited",
            Verdict::NotFound => "not found",
            Verdict::Other => "other",
            Verdict::Unauthenticated => "unauthenticated",
            Verdict::Undecided => "undecided",
        }
    }
}

impl Fate {
    fn new(verdict: Verdict, by: Option<Arc<str>>) -> Self {
        Self { verdict, route: None, server: None, targets: None, by }
    }

    /// Whether the two are the same as far as both say.
    pub(super) fn agrees_with(&self, recorded: &Fate) -> bool {
        let unknown = |v: Verdict| matches!(v, Verdict::Other | Verdict::Undecided);
        let known = |ours: &Option<Arc<str>>, theirs: &Option<Arc<str>>| theirs.is_none() || ours == theirs;
        (unknown(self.verdict) || unknown(recorded.verdict) || self.verdict == recorded.verdict)
            && known(&self.route, &recorded.route)
            && (self.verdict != Verdict::Allow || known(&self.server, &recorded.server))
    }
}

/// What the record itself says.
pub(super) fn recorded(sample: &RequestSample) -> Fate {
    let verdict = match sample.outcome.as_str() {
        "ok"
        | "rpc_error"
        | "tool_error"
        | "unknown_item"
        | "upstream_credential"
        | "upstream_error"
        | "upstream_unavailable"
        | "timeout" => Verdict::Allow,
        "denied" => Verdict::Deny,
        "forbidden" => Verdict::Forbidden,
        "limited" => Verdict::Limited,
        "not_found" => Verdict::NotFound,
        "unauthenticated" => Verdict::Unauthenticated,
        _ => Verdict::Other,
    };
    Fate {
        verdict,
        route: sample.route.as_deref().map(Into::into),
        server: sample.server.as_deref().filter(|_| verdict == Verdict::Allow).map(Into::into),
        targets: None,
        by: None,
    }
}

/// One of the two configurations, with buckets of its own.
pub(super) struct Side<'s> {
    snapshot: &'s Snapshot,
    buckets: Buckets,
    /// What is asked of each route again and again.
    prepared: HashMap<*const Route, Prepared>,
}

struct Prepared {
    route: Arc<str>,
    server: Arc<str>,
    targets: Arc<str>,
    sources: Vec<Source>,
    limits: HashMap<Box<str>, Arc<str>>,
    rules: Vec<Arc<str>>,
}

impl<'s> Side<'s> {
    pub(super) fn new(snapshot: &'s Snapshot) -> Self {
        let buckets = Buckets::new(Clock::manual(0), DEFAULT_MAX_BUCKETS);
        Self { snapshot, buckets, prepared: HashMap::new() }
    }

    /// What becomes of a request `now_ms` after the first.
    pub(super) fn decide(
        &mut self,
        sample: &RequestSample,
        principal: Option<&Principal>,
        now_ms: u64,
    ) -> Fate {
        let found = match &sample.path {
            Some(path) => self.snapshot.find(sample.host.as_deref().unwrap_or_default(), path),
            None => self.snapshot.tenants().flat_map(|tenant| tenant.routes()).find(|route| {
                Some(route.id.as_str()) == sample.route.as_deref()
                    && sample.tenant.as_deref().is_none_or(|tenant| tenant == route.tenant.as_str())
            }),
        };
        let Some(route) = found else { return Fate::new(Verdict::NotFound, None) };
        let prepared = self.prepared.entry(Arc::as_ptr(route)).or_insert_with(|| Prepared::new(route));
        let (verdict, by) = judge(&self.buckets, prepared, route, sample, principal, now_ms);
        Fate {
            verdict,
            route: Some(prepared.route.clone()),
            server: Some(prepared.server.clone()),
            targets: Some(prepared.targets.clone()),
            by,
        }
    }
}

impl Prepared {
    fn new(route: &Route) -> Self {
        let status = route.server.status();
        let literal = status.targets.iter().map(|target| &target.target);
        let mut targets: Vec<&str> =
            literal.chain(status.names.iter().map(|name| &name.target)).map(String::as_str).collect();
        targets.sort_unstable();
        targets.dedup();
        let limits = route.limits.iter().map(|l| (l.name().into(), format!("limit {}", l.name()).into()));
        let rules = route.policy.iter().flat_map(|policy| {
            policy.rules().iter().enumerate().map(move |(at, rule)| match &rule.name {
                Some(name) => format!("policy {}, rule {} `{name}`", policy.name(), at + 1),
                None => format!("policy {}, rule {}", policy.name(), at + 1),
            })
        });
        Self {
            route: route.id.as_str().into(),
            server: route.server_id.as_str().into(),
            targets: targets.join(" ").into(),
            sources: route.authenticator.sources(),
            limits: limits.collect(),
            rules: rules.map(Into::into).collect(),
        }
    }

    /// Who the caller is here: as recorded, or, without a credential, whom this configuration makes of them.
    fn caller(&self, recorded: &Principal) -> Option<Principal> {
        let nobody = recorded.kind == crate::base::PrincipalKind::Anonymous;
        let source = self.sources.iter().find(|source| match nobody {
            // Who was `loopback` came from this machine; others are told apart by nothing that was recorded.
            true => !source.authenticated && (recorded.id.as_str() == "loopback" || !source.loopback),
            false => {
                source.authenticated
                    && source.kinds.contains(&recorded.kind)
                    && match &source.id {
                        SourceId::Any => true,
                        SourceId::Exact(id) => **id == *recorded.id.as_str(),
                        SourceId::Prefix(prefix) => recorded.id.as_str().starts_with(&**prefix),
                    }
            }
        })?;
        let mut caller = recorded.clone();
        if let (true, SourceId::Exact(id), Some(roles)) = (nobody, &source.id, source.roles.first()) {
            caller.id = crate::base::PrincipalId::new(&**id);
            caller.roles = *roles;
        }
        Some(caller)
    }
}

fn judge(
    buckets: &Buckets,
    prepared: &Prepared,
    route: &Route,
    sample: &RequestSample,
    principal: Option<&Principal>,
    now_ms: u64,
) -> (Verdict, Option<Arc<str>>) {
    // A request whose caller was never found out says nothing about one who could have been.
    let Some(recorded) = principal else { return (Verdict::Unauthenticated, None) };
    let Some(caller) = prepared.caller(recorded) else { return (Verdict::Unauthenticated, None) };
    let missing = route.scopes.iter().find(|scope| !caller.scopes.iter().any(|s| **s == ***scope));
    if let Some(scope) = missing {
        return (Verdict::Forbidden, Some(format!("scope {scope}").into()));
    }
    let name = sample.name.as_deref();
    let item = match (sample.method.as_str(), name) {
        ("tools/call", Some(name)) => Item::Tool(name),
        ("prompts/get" | "completion/complete", Some(name)) => Item::Prompt(name),
        ("resources/read" | "resources/subscribe" | "resources/unsubscribe", Some(uri)) => {
            Item::Resource(uri)
        }
        _ => Item::None,
    };
    let incoming = match sample.method.starts_with("notifications/") {
        true => Incoming::Notification,
        false => Incoming::Request(&sample.method),
    };
    if !route.limits.is_empty() && !is_exempt(incoming) {
        let facts = limit::Facts {
            tenant: route.tenant.as_str(),
            route: route.id.as_str(),
            server: Some(route.server_id.as_str()),
            principal: Some(&caller),
            ip: sample.ip,
            method: &sample.method,
            tool: name.filter(|_| matches!(item, Item::Tool(_))),
        };
        // An hour on, as the process's own clock begins.
        let now_ns = (3_600_000 + now_ms.min(MAX_SPAN_MS)) * 1_000_000;
        if let limit::Decision::Refused(refusal) = buckets.check(now_ns, &route.limits, &facts) {
            return (Verdict::Limited, prepared.limits.get(refusal.limit().name()).cloned());
        }
    }
    if !route.serves_method(&sample.method) {
        return (Verdict::Deny, Some("methods of the route".into()));
    }
    let Some(policy) = &route.policy else { return (Verdict::Allow, None) };
    let facts = policy::Facts {
        tenant: route.tenant.as_str(),
        route: route.id.as_str(),
        server: Some(route.server_id.as_str()),
        principal: &caller,
        ip: sample.ip,
        method: &sample.method,
        item,
        arguments: sample.arguments.as_deref(),
    };
    if let Some(rule) = unknown(policy, &facts) {
        return (Verdict::Undecided, prepared.rules.get(rule).cloned());
    }
    let decision = policy.decide(&facts);
    let by = decision.rule().and_then(|rule| prepared.rules.get(rule.index).cloned());
    match decision.is_allowed() {
        true => (Verdict::Allow, by),
        false => {
            (Verdict::Deny, Some(by.unwrap_or_else(|| format!("policy {}, default", policy.name()).into())))
        }
    }
}

/// The first rule that had to be evaluated on something that was not recorded.
fn unknown(policy: &Policy, facts: &policy::Facts<'_>) -> Option<usize> {
    let calls = !matches!(facts.item, Item::None);
    let reads = |rule: &policy::Rule| match &rule.when {
        When::If(program) => {
            (program.reads_arguments() && calls && facts.arguments.is_none()) || program.reads_claims()
        }
        When::Always | When::Never => false,
    };
    if !policy.rules().iter().any(reads) {
        return None;
    }
    let trace = policy.explain(facts);
    trace.rules.iter().position(|traced| {
        let evaluated =
            matches!(traced.outcome, Outcome::Failed(_) | Outcome::Matched | Outcome::Mismatch(Field::When));
        evaluated && reads(&policy.rules()[traced.rule.index])
    })
}
