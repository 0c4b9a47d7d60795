//! `tollgate explain`.

use std::sync::Arc;

use super::args::ExplainArgs;
use super::env;
use crate::app::{self, Document, Options};
use crate::base::{Principal, PrincipalId, PrincipalKind, Role, RoleSet, TenantId};
use crate::limit::{self, Decision, Incoming, is_exempt};
use crate::policy::{self, Effect, Item};
use crate::snapshot::Route;

/// `true`: the request would be let through.
pub(super) fn run(args: &ExplainArgs) -> Result<bool, String> {
    if let Some(text) = &args.arguments {
        arguments(text)?;
    }
    let document = match &args.config {
        Some(path) => Document::File(path.clone()),
        None => Document::Embedded,
    };
    let compiled = app::compile_only(&Options { env: Arc::new(env), ..Options::new(document) })?;
    let routes = compiled.routes();
    // Of the tenant `default`, or `<tenant>/<route>`.
    let name = |r: &Route| match r.tenant == TenantId::default() {
        true => r.id.to_string(),
        false => format!("{}/{}", r.tenant, r.id),
    };
    let route = routes.iter().find(|r| name(r) == args.route).ok_or_else(|| {
        let names: Vec<String> = routes.iter().map(|r| name(r)).collect();
        format!("there is no route `{}`; there are: {}", args.route, names.join(", "))
    })?;
    let principal = principal(args, &route.tenant)?;
    let item = match (&args.tool, &args.prompt, &args.resource) {
        (Some(tool), _, _) => Item::Tool(tool),
        (_, Some(prompt), _) => Item::Prompt(prompt),
        (_, _, Some(uri)) => Item::Resource(uri),
        _ => Item::None,
    };
    let method = args.method.as_deref().unwrap_or(match item {
        Item::Tool(_) => "tools/call",
        Item::Prompt(_) => "prompts/get",
        Item::Resource(_) | Item::ResourceTemplate(_) => "resources/read",
        Item::None => "tools/list",
    });
    println!("route    {} → {}", route.id, route.url);
    println!(
        "caller   {} ({}), roles {:?}, from {}",
        principal.id,
        principal.kind.as_str(),
        principal.roles,
        args.ip
    );
    println!("request  {method} {}", item.name());
    let served = route.serves_method(method);
    if !served {
        println!("method   does not exist on this route (`methods`)");
    }
    let scopes = missing_scopes(route, &principal);
    if !scopes.is_empty() {
        println!("scopes   403 insufficient_scope: missing {}", scopes.join(" "));
    }
    let limited = limits(route, &principal, args, method, item);
    let allowed = decide(route, &principal, args, method, item);
    println!("server   {}", route.server_id);
    for target in route.server.status().names {
        println!("         target {}", target.target);
    }
    let passes = served && scopes.is_empty() && allowed && !limited;
    println!("outcome  {}", if passes { "goes to the server" } else { "is refused" });
    Ok(passes)
}

/// What no client could send would be judged as something else.
fn arguments(text: &str) -> Result<(), String> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(_)) => Ok(()),
        Ok(_) => Err("--arguments: expected a JSON object, such as '{\"city\": \"Graz\"}'".to_owned()),
        Err(e) => Err(format!("--arguments is not JSON: {e}")),
    }
}

fn principal(args: &ExplainArgs, tenant: &TenantId) -> Result<Principal, String> {
    let roles = args
        .roles
        .iter()
        .map(|r| r.parse::<Role>().map_err(|e| e.to_string()))
        .collect::<Result<RoleSet, _>>()?;
    let kind = match args.kind.as_str() {
        "user" => PrincipalKind::User,
        "service" => PrincipalKind::Service,
        "key" => PrincipalKind::Key,
        "anonymous" => PrincipalKind::Anonymous,
        other => return Err(format!("unknown kind `{other}`: expected user, service, key or anonymous")),
    };
    let claims = match &args.claims {
        Some(text) => serde_json::from_str(text).map_err(|e| format!("--claims is not JSON: {e}"))?,
        None => serde_json::Value::Null,
    };
    Ok(Principal {
        id: PrincipalId::new(args.principal.as_str()),
        kind,
        roles,
        groups: args.groups.iter().map(|g| g.as_str().into()).collect(),
        scopes: args.scopes.iter().map(|s| s.as_str().into()).collect(),
        claims,
        ..Principal::anonymous(tenant.clone(), Role::Anonymous)
    })
}

fn missing_scopes(route: &Route, principal: &Principal) -> Vec<String> {
    let has = |scope: &str| principal.scopes.iter().any(|s| **s == *scope);
    route.scopes.iter().filter(|s| !has(s)).map(ToString::to_string).collect()
}

/// Prints the limits; `true` if one would refuse even the first request.
fn limits(route: &Route, principal: &Principal, args: &ExplainArgs, method: &str, item: Item<'_>) -> bool {
    if route.limits.is_empty() {
        println!("limits   none");
        return false;
    }
    if is_exempt(Incoming::Request(method)) {
        println!("limits   do not apply to {method}");
        return false;
    }
    let facts = limit::Facts {
        tenant: route.tenant.as_str(),
        route: route.id.as_str(),
        server: Some(route.server_id.as_str()),
        principal: Some(principal),
        ip: args.ip,
        method,
        tool: match item {
            Item::Tool(name) => Some(name),
            _ => None,
        },
    };
    let buckets = limit::Buckets::new(crate::base::Clock::default(), 1024);
    let mut refused = false;
    for one in &route.limits {
        match buckets.check(crate::base::Clock::default().mono_ns(), std::slice::from_ref(one), &facts) {
            Decision::Granted(None) => println!("limits   {}: does not apply to this request", one.name()),
            Decision::Granted(Some(quota)) => println!(
                "limits   {}: {} per {} s; {} left after this request with a full bucket",
                one.name(),
                quota.quota(),
                quota.window_secs(),
                quota.remaining()
            ),
            Decision::Refused(refusal) => {
                println!("limits   {}: refuses, retry after {} s", one.name(), refusal.retry_after_secs());
                refused = true;
            }
            Decision::Starved(_) => println!("limits   {}: shared with all replicas", one.name()),
        }
    }
    refused
}

/// Prints what policy says; `true` if the request is allowed.
fn decide(route: &Route, principal: &Principal, args: &ExplainArgs, method: &str, item: Item<'_>) -> bool {
    let Some(policy) = &route.policy else {
        println!("policy   none: whoever is identified may do everything");
        return true;
    };
    let facts = policy::Facts {
        tenant: route.tenant.as_str(),
        route: route.id.as_str(),
        server: Some(route.server_id.as_str()),
        principal,
        ip: args.ip,
        method,
        item,
        arguments: args.arguments.as_deref(),
    };
    let trace = policy.explain(&facts);
    let effect = trace.decision.effect;
    let verdict = if effect == Effect::Allow { "allowed" } else { "denied" };
    println!("policy   {}: {verdict} ({})", policy.name(), trace.decision.reason());
    for rule in &trace.rules {
        let name = rule.rule.name.map(|n| format!(" `{n}`")).unwrap_or_default();
        println!(
            "         rule {}{name} ({}): {}",
            rule.rule.index + 1,
            rule.effect.as_str(),
            outcome(&rule.outcome)
        );
    }
    match policy.recorded(&trace.decision) {
        None => println!("bodies   are not recorded"),
        Some(record) => {
            let which = match (record.request, record.response) {
                (true, true) => "request and response are",
                (true, false) => "request is",
                _ => "response is",
            };
            println!("bodies   {which} recorded, up to {} bytes", record.max);
        }
    }
    effect == Effect::Allow
}

fn outcome(outcome: &policy::Outcome) -> String {
    match outcome {
        policy::Outcome::Failed(failure) => format!("its expression fails, which denies: {failure}"),
        policy::Outcome::Matched => "matches and decides".to_owned(),
        policy::Outcome::Mismatch(field) => format!("does not match: {}", field.as_str()),
        policy::Outcome::NotReached => "not reached".to_owned(),
        policy::Outcome::Undecided => "reads arguments, which are not known here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[test]
    fn arguments_are_an_object_or_refused_with_the_place() {
        assert!(arguments(r#"{"n": 1}"#).is_ok());
        let bad = arguments("{bad").unwrap_err();
        assert!(bad.starts_with("--arguments is not JSON: ") && bad.ends_with("line 1 column 2"), "{bad}");
        assert!(arguments("[1]").unwrap_err().contains("expected a JSON object"));
    }
}
