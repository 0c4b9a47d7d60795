//! Whether a message may go on: limits, methods, restrictions of the key, policy (request path, steps 5 and 6).

use bytes::Bytes;
use http::HeaderName;

use crate::gateway::observe::Observation;
use crate::gateway::respond::Failure;
use crate::gateway::send::Sort;
use crate::gateway::serve::Caller;
use crate::gateway::{Gateway, Stop, headers};
use crate::limit::{self, Incoming, is_exempt};
use crate::mcp::rewrite::ListKind;
use crate::mcp::scan::{self, Kind, Message};
use crate::mcp::version::Era;
use crate::policy::{self, Item};
use crate::snapshot::Route;

/// Trips one request waits for: others may take what the first ones bring.
const MAX_TRIPS: u32 = 4;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl Gateway {
    /// Steps 5 and 6 for one message.
    pub(crate) async fn check_message(
        &self,
        seen: &mut Observation<'_>,
        common: &mut headers::Common<'_>,
        caller: &Caller,
        body: &Bytes,
        message: &Message<'_>,
        modern: bool,
    ) -> Result<(), Stop> {
        let method = message.method_name();
        let incoming = match message.kind {
            Kind::Notification => Incoming::Notification,
            Kind::Request => Incoming::Request(method),
            Kind::Response(_) => Incoming::Response,
        };
        let item = item_of(message);
        let tool = match item {
            Item::Tool(name) => Some(name),
            _ => None,
        };
        self.limit(seen, common, caller, incoming, method, tool).await?;
        if matches!(message.kind, Kind::Response(_)) {
            return Ok(());
        }
        let restricted = caller.identity.restriction.as_ref().is_some_and(|r| !r.allows_method(method));
        if (restricted && message.kind == Kind::Request && !policy::is_open_method(method))
            || !caller.route.serves_method(method)
        {
            return Err(Failure::unknown_method(modern, method).into());
        }
        if let (Some(tool), Some(restriction)) = (tool, &caller.identity.restriction)
            && !restriction.allows_tool(tool)
        {
            return Err(Failure::unknown_item("tool", tool).into());
        }
        let decided = self.authorize(seen, caller, body, message, item);
        if seen.recording.is_some() {
            self.make_room(seen, decided.is_ok()).await?;
        }
        decided
    }

    /// Room for the bodies that a policy wants recorded. A call that goes on is refused without it, as any other without
    /// room for its event; one that is refused anyway has its event without bodies, and so has any where events may be
    /// lost.
    async fn make_room(&self, seen: &mut Observation<'_>, goes_on: bool) -> Result<(), Stop> {
        let Some(recording) = seen.recording.as_mut().filter(|recording| !recording.is_lost()) else {
            return Ok(());
        };
        let (audit, bytes) = (&self.parts.audit, recording.room());
        let room = if goes_on {
            audit.admit_bodies(&mut seen.credit, bytes).await
        } else {
            Ok(audit.try_admit_bodies(&mut seen.credit, bytes))
        };
        if !matches!(room, Ok(true)) {
            recording.lose();
        }
        room.map(drop).map_err(|_| Failure::audit_full().into())
    }

    /// Step 5: takes from every limit or from none. Waits only if a shared limit has no leased tokens.
    pub(crate) async fn limit(
        &self,
        seen: &mut Observation<'_>,
        common: &mut headers::Common<'_>,
        caller: &Caller,
        incoming: Incoming<'_>,
        method: &str,
        tool: Option<&str>,
    ) -> Result<(), Stop> {
        let route = &caller.route;
        if route.limits.is_empty() || is_exempt(incoming) {
            return Ok(());
        }
        let facts = limit::Facts {
            tenant: route.tenant.as_str(),
            route: route.id.as_str(),
            server: Some(route.server_id.as_str()),
            principal: Some(caller.principal()),
            ip: seen.client,
            method,
            tool,
        };
        let mut decision = self.parts.buckets.check(self.parts.clock.mono_ns(), &route.limits, &facts);
        if let limit::Decision::Starved(starved) = decision {
            decision = self.fetch_tokens(route, &facts, starved).await;
        }
        let (quota, refused) = match decision {
            limit::Decision::Granted(quota) => (quota, None),
            limit::Decision::Refused(refusal) => (Some(*refusal.quota()), Some(refusal)),
            // Fetching has an end that is one of the others.
            limit::Decision::Starved(_) => (None, None),
        };
        if let Some(quota) = quota {
            let mut buffer = Vec::with_capacity(48);
            common.rate =
                vec![(RATE_LIMIT_POLICY, quota.policy_header()), (RATE_LIMIT, quota.header(&mut buffer))];
        }
        match refused {
            None => Ok(()),
            Some(refusal) => {
                let name = refusal.limit().name();
                route.metrics.limit_refused(name);
                seen.limit = Some(name.into());
                Err(Failure::limited(name, refusal.retry_after()).into())
            }
        }
    }

    /// Has tokens of shared limits fetched and asks again; without their server, each does what it says for that.
    async fn fetch_tokens<'r>(
        &self,
        route: &'r Route,
        facts: &limit::Facts<'_>,
        mut starved: Vec<limit::Starved>,
    ) -> limit::Decision<'r> {
        let (buckets, clock) = (&self.parts.buckets, &self.parts.clock);
        if let Some(shared) = &self.parts.shared {
            let deadline = shared.deadline();
            let mut trips = 0;
            while shared.fetch(&starved, deadline).await.is_ok() {
                trips += 1;
                if trips == MAX_TRIPS {
                    return buckets.check_finally(clock.mono_ns(), &route.limits, facts);
                }
                match buckets.check(clock.mono_ns(), &route.limits, facts) {
                    limit::Decision::Starved(still) => starved = still,
                    decision => return decision,
                }
            }
        }
        for one in &starved {
            route.metrics.limit_fell_back(one.limit());
        }
        buckets.check_cut_off(clock.mono_ns(), &route.limits, facts)
    }

    /// Step 6.
    fn authorize(
        &self,
        seen: &mut Observation<'_>,
        caller: &Caller,
        body: &Bytes,
        message: &Message<'_>,
        item: Item<'_>,
    ) -> Result<(), Stop> {
        let Some(policy) = &caller.route.policy else { return Ok(()) };
        let arguments = message.params.arguments.as_ref().map(scan::Raw::as_str);
        let arguments = arguments.filter(|_| policy.reads_arguments());
        let facts = policy_facts(seen, caller, message.method_name(), item, arguments);
        let decision = policy.decide(&facts);
        if let Some(record) = policy.recorded(&decision) {
            seen.record(record, body, matches!(Sort::of(message), Sort::Call | Sort::Handshake));
        }
        if decision.is_allowed() {
            return Ok(());
        }
        deny(seen, caller, &decision);
        if policy.explains() {
            return Err(explained(policy, &decision).into());
        }
        Err(match item {
            Item::None => Failure::unknown_method(seen.era == Some(Era::Modern), message.method_name()),
            Item::Prompt(name) => Failure::unknown_item("prompt", name),
            Item::Resource(uri) | Item::ResourceTemplate(uri) => Failure::unknown_item("resource", uri),
            Item::Tool(name) => Failure::unknown_item("tool", name),
        }
        .into())
    }

    /// Step 6 for requests without a message.
    pub(crate) fn authorize_plain(
        &self,
        seen: &mut Observation<'_>,
        caller: &Caller,
        method: &str,
    ) -> Result<(), Stop> {
        let Some(policy) = &caller.route.policy else { return Ok(()) };
        let facts = policy_facts(seen, caller, method, Item::None, None);
        let decision = policy.decide(&facts);
        if decision.is_allowed() {
            return Ok(());
        }
        deny(seen, caller, &decision);
        Err(Failure::forbidden(None, "a policy denies this").into())
    }

    pub(crate) fn list_to_filter(&self, caller: &Caller, message: &Message<'_>) -> Option<ListKind> {
        let kind = ListKind::of_method(message.method_name())?;
        let item = match kind {
            ListKind::Prompts => policy::ItemKind::Prompt,
            ListKind::ResourceTemplates | ListKind::Resources => policy::ItemKind::Resource,
            ListKind::Tools => policy::ItemKind::Tool,
        };
        let by_policy = caller.route.policy.as_ref().is_some_and(|p| p.decides_lists(item));
        let by_key = kind == ListKind::Tools && caller.identity.restriction.is_some();
        (by_policy || by_key).then_some(kind)
    }
}

/// What a message reaches, by the server's own name for it.
pub(crate) fn item_of<'m>(message: &'m Message<'_>) -> Item<'m> {
    let params = &message.params;
    let of = |value: Option<&'m str>, item: fn(&'m str) -> Item<'m>| value.map_or(Item::None, item);
    match message.method_name() {
        "tools/call" => of(params.name.as_deref(), Item::Tool),
        "prompts/get" => of(params.name.as_deref(), Item::Prompt),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            of(params.uri.as_deref(), Item::Resource)
        }
        "completion/complete" => match (params.ref_name.as_deref(), params.ref_uri.as_deref()) {
            (Some(name), None) => Item::Prompt(name),
            (None, Some(uri)) => Item::ResourceTemplate(uri),
            _ => Item::None,
        },
        _ => Item::None,
    }
}

/// The facts that policy is asked about.
pub(crate) fn policy_facts<'a>(
    seen: &Observation<'_>,
    caller: &'a Caller,
    method: &'a str,
    item: Item<'a>,
    arguments: Option<&'a str>,
) -> policy::Facts<'a> {
    policy::Facts {
        tenant: caller.route.tenant.as_str(),
        route: caller.route.id.as_str(),
        server: Some(caller.route.server_id.as_str()),
        principal: caller.principal(),
        ip: seen.client,
        method,
        item,
        arguments,
    }
}

fn deny(seen: &mut Observation<'_>, caller: &Caller, decision: &policy::Decision<'_>) {
    caller.route.metrics.policy_denied();
    seen.rule = Some(match decision.rule() {
        Some(rule) => match rule.name {
            Some(name) => name.into(),
            None => rule.index.to_string().into(),
        },
        None => decision.reason().into(),
    });
}

fn explained(policy: &policy::Policy, decision: &policy::Decision<'_>) -> Failure {
    let why = match decision.rule() {
        Some(rule) => match rule.name {
            Some(name) => format!("rule `{name}`"),
            None => format!("rule {}", rule.index + 1),
        },
        None => "its default".to_owned(),
    };
    Failure::forbidden(None, format!("policy `{}` denies this by {why}", policy.name()))
}
