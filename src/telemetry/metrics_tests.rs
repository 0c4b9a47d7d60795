use std::time::Duration;

use super::super::handles::Sample;
use super::super::label::{
    AuthFailure, CanaryEnd, CanaryOutcome, CanarySide, Method, Outcome, ReloadOutcome, UpstreamError,
};
use super::*;

fn metrics(caps: Caps) -> Arc<Metrics> {
    Metrics::new(caps, Clock::manual(1_700_000_000), "1.2.3")
}

fn ids(tenant: &str, route: &str, servers: &[&str]) -> (TenantId, RouteId, Vec<ServerId>) {
    (tenant.into(), route.into(), servers.iter().map(|s| ServerId::from(*s)).collect())
}

fn route(m: &Metrics, tenant: &str, name: &str, servers: &[&str]) -> RouteMetrics {
    let (tenant, name, servers) = ids(tenant, name, servers);
    m.route(&tenant, &name, &servers)
}

fn call(tool: &str) -> Sample<'_> {
    Sample {
        server: Some(0),
        method: Method::ToolsCall,
        outcome: Outcome::Ok,
        total: Duration::from_micros(1080),
        upstream: Duration::from_millis(1),
        tool: Some(tool),
    }
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|l| l == line)
}

#[track_caller]
fn assert_line(m: &Metrics, line: &str) {
    let text = m.render();
    assert!(has(&text, line), "no line `{line}` in\n{text}");
}

/// Gives every family at least one sample.
fn populate(m: &Metrics) {
    let r = route(m, "t", "r", &["s"]);
    r.observe(&call("echo"));
    r.limit_refused("by_role");
    r.limit_fell_back("by_role");
    m.limit_trips("ok").inc();
    r.policy_denied();
    std::mem::forget(r.stream());
    let server = m.server(&"t".into(), &"s".into());
    server.retried();
    server.failed(UpstreamError::Connect);
    m.target(&"t".into(), &"s".into(), &"127.0.0.1:1".into()).set_healthy();
    let tenant = m.tenant(&"t".into());
    tenant.auth_failed(AuthFailure::Missing);
    tenant.canary_called(CanarySide::Candidate, CanaryOutcome::Ok);
    m.canary_ended(CanaryEnd::Promoted);
    m.config_reloaded(ReloadOutcome::Applied);
    m.config_revision(7);
    m.jwks_fetched("corp");
}

#[test]
fn names_types_and_labels_match_the_golden_list() {
    let list: String = names::ALL
        .iter()
        .map(|s| format!("{} {} {{{}}}\n", s.name, s.kind.as_str(), s.labels.join(",")))
        .collect();
    assert_eq!(
        list,
        include_str!("metrics.golden"),
        "a changed name breaks dashboards: update metrics.golden"
    );
}

#[test]
fn every_family_of_the_table_is_rendered_with_its_type_and_labels() {
    let m = metrics(Caps { limits: 0, ..Caps::default() });
    populate(&m);
    let text = m.render();
    for spec in names::ALL {
        assert!(has(&text, &format!("# TYPE {} {}", spec.name, spec.kind.as_str())), "{}", spec.name);
        let suffix = if matches!(spec.kind, names::Kind::Histogram(_)) { "_count" } else { "" };
        let start = format!("{}{suffix}", spec.name);
        let sample = text
            .lines()
            .find(|l| l.strip_prefix(&start).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .unwrap_or_else(|| panic!("no sample of {}", spec.name));
        for label in spec.labels {
            assert!(sample.contains(&format!("{label}=\"")), "{label} in {sample}");
        }
    }
    let families = text.lines().filter(|l| l.starts_with("# TYPE ")).count();
    assert_eq!(families, names::ALL.len(), "a family outside the table");
}

#[test]
fn the_table_is_sorted_and_follows_the_naming_rules() {
    assert!(names::ALL.is_sorted_by_key(|s| s.name));
    for spec in names::ALL {
        assert!(spec.name.starts_with("tollgate_"));
        assert_eq!(spec.name.ends_with("_total"), spec.kind == names::Kind::Counter, "{}", spec.name);
    }
    for buckets in [names::LATENCY_BUCKETS, names::OWN_COST_BUCKETS] {
        assert!(buckets.is_sorted());
    }
    assert_eq!(names::LATENCY_BUCKETS.first(), Some(&0.000_05));
    assert_eq!(names::LATENCY_BUCKETS.last(), Some(&60.0));
}

#[test]
fn a_call_counts_once_in_each_family() {
    let m = metrics(Caps::default());
    let r = route(&m, "t", "r", &["s"]);
    r.observe(&call("echo"));
    let labels = r#"method="tools/call",outcome="ok",route="r",server="s",tenant="t""#;
    assert_line(&m, &format!("tollgate_requests_total{{{labels}}} 1"));
    assert_line(&m, r#"tollgate_request_seconds_count{route="r",server="s",tenant="t"} 1"#);
    assert_line(&m, r#"tollgate_gateway_seconds_bucket{route="r",tenant="t",le="0.000075"} 0"#);
    assert_line(&m, r#"tollgate_gateway_seconds_bucket{route="r",tenant="t",le="0.0001"} 1"#);
    assert_line(&m, r#"tollgate_tool_seconds_bucket{server="s",tenant="t",tool="echo",le="0.001"} 1"#);
}

#[test]
fn a_request_answered_by_the_gateway_has_an_empty_server() {
    let m = metrics(Caps::default());
    let r = route(&m, "t", "r", &["s"]);
    let limited =
        Sample { server: None, outcome: Outcome::Limited, upstream: Duration::ZERO, ..call("echo") };
    r.observe(&limited);
    r.observe(&Sample { server: Some(9), ..limited });
    let labels = r#"method="tools/call",outcome="limited",route="r",server="",tenant="t""#;
    assert_line(&m, &format!("tollgate_requests_total{{{labels}}} 2"));
    assert!(!m.render().contains("tollgate_tool_seconds"), "the tool was not called");
}

#[test]
fn open_streams_stay_out_of_the_latencies() {
    let m = metrics(Caps::default());
    let r = route(&m, "t", "r", &["s"]);
    r.observe(&Sample { method: Method::Stream, total: Duration::from_secs(3600), ..call("x") });
    assert_line(&m, r#"tollgate_request_seconds_count{route="r",server="s",tenant="t"} 0"#);
    assert_line(&m, r#"tollgate_gateway_seconds_count{route="r",tenant="t"} 0"#);
}

#[test]
fn a_reload_resets_nothing() {
    let m = metrics(Caps::default());
    let old = route(&m, "t", "r", &["a"]);
    old.observe(&call("echo"));
    let new = route(&m, "t", "r", &["b", "a"]);
    drop(old);
    new.observe(&Sample { server: Some(1), ..call("echo") });
    let labels = r#"method="tools/call",outcome="ok",route="r",server="a",tenant="t""#;
    assert_line(&m, &format!("tollgate_requests_total{{{labels}}} 2"));
    assert_line(&m, r#"tollgate_tool_seconds_count{server="a",tenant="t",tool="echo"} 2"#);
}

#[test]
fn concurrent_requests_are_all_counted() {
    let m = metrics(Caps::default());
    let r = route(&m, "t", "r", &["s"]);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let r = &r;
            scope.spawn(move || {
                for i in 0..500 {
                    let outcome = Outcome::ALL[i % Outcome::COUNT];
                    let method = Method::ALL[(i + thread) % Method::COUNT];
                    r.observe(&Sample { outcome, method, ..call(["a", "b", "c"][i % 3]) });
                }
            });
        }
    });
    let text = m.render();
    let total: f64 = text
        .lines()
        .filter(|l| l.starts_with("tollgate_requests_total{"))
        .map(|l| l.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).expect("a number"))
        .sum();
    assert_eq!(total, 4000.0);
}

#[test]
fn tools_past_the_cap_count_as_other() {
    let m = metrics(Caps { tools: 2, ..Caps::default() });
    let r = route(&m, "t", "r", &["s"]);
    for tool in ["a", "b", "c", "d", "a"] {
        r.observe(&call(tool));
    }
    assert_line(&m, r#"tollgate_tool_seconds_count{server="s",tenant="t",tool="a"} 2"#);
    assert_line(&m, r#"tollgate_tool_seconds_count{server="s",tenant="t",tool="other"} 2"#);
    assert_line(&m, r#"tollgate_label_overflow_total{label="tool"} 2"#);
}

#[test]
fn a_name_that_no_server_confirmed_never_becomes_a_label() {
    let m = metrics(Caps::default());
    let r = route(&m, "t", "r", &["s"]);
    for outcome in [Outcome::RpcError, Outcome::UnknownItem, Outcome::Timeout] {
        r.observe(&Sample { outcome, ..call("made_up") });
    }
    assert!(!m.render().contains("made_up"));
    assert_line(&m, r#"tollgate_tool_seconds_count{server="s",tenant="t",tool="other"} 3"#);
}

#[test]
fn tenants_past_the_cap_share_one_set_of_series() {
    let m = metrics(Caps { tenants: 1, ..Caps::default() });
    route(&m, "first", "r", &["s"]).observe(&call("x"));
    for tenant in ["second", "third"] {
        route(&m, tenant, "private", &["internal"]).observe(&call("x"));
        let target = m.target(&tenant.into(), &"internal".into(), &"10.0.0.1:1".into());
        target.set_healthy();
        target.ejected(1);
        m.tenant(&tenant.into()).auth_failed(AuthFailure::Expired);
    }
    let labels = r#"method="tools/call",outcome="ok",route="other",server="other",tenant="other""#;
    assert_line(&m, &format!("tollgate_requests_total{{{labels}}} 2"));
    assert_line(&m, r#"tollgate_auth_failures_total{reason="expired",tenant="other"} 2"#);
    assert_line(&m, r#"tollgate_target_ejections_total{server="other",target="other",tenant="other"} 2"#);
    let text = m.render();
    assert!(!text.contains("private") && !text.contains("10.0.0.1"));
    assert!(!text.contains("tollgate_target_healthy{"), "one number cannot say the health of many");
}

#[test]
fn routes_servers_targets_and_limits_have_caps() {
    let m = metrics(Caps { routes: 1, servers: 1, targets: 1, limits: 1, ..Caps::default() });
    for name in ["a", "b", "c"] {
        let r = route(&m, "t", name, &[name]);
        r.observe(&call("x"));
        m.target(&"t".into(), &"a".into(), &name.into()).ejected(1);
    }
    let a = route(&m, "t", "a", &["a"]);
    a.limit_refused("one");
    a.limit_refused("two");
    let labels = r#"method="tools/call",outcome="ok",route="other",server="other",tenant="t""#;
    assert_line(&m, &format!("tollgate_requests_total{{{labels}}} 2"));
    assert_line(&m, r#"tollgate_target_ejections_total{server="a",target="other",tenant="t"} 2"#);
    assert_line(&m, r#"tollgate_limit_refusals_total{limit="other",route="a",tenant="t"} 1"#);
}

#[test]
fn a_removed_route_goes_after_two_sweeps() {
    let m = metrics(Caps::default());
    let kept = route(&m, "t", "kept", &["s"]);
    let removed = route(&m, "t", "removed", &["s", "gone"]);
    removed.observe(&call("x"));
    assert_eq!(m.sweep(), 0);
    drop(removed);
    assert_eq!(m.sweep(), 0, "the first sweep only marks");
    assert!(m.render().contains("removed"));
    assert_eq!(m.sweep(), 5, "two servers and the gateway through the route, the route, the server");
    let text = m.render();
    assert!(!text.contains("removed") && !text.contains("gone"));
    kept.observe(&call("x"));
    assert_line(&m, r#"tollgate_tool_seconds_count{server="s",tenant="t",tool="x"} 2"#);
}

#[test]
fn a_route_that_comes_back_between_sweeps_goes_on_counting() {
    let m = metrics(Caps::default());
    route(&m, "t", "r", &["s"]).observe(&call("x"));
    m.sweep();
    let back = route(&m, "t", "r", &["s"]);
    m.sweep();
    drop(back);
    m.sweep();
    route(&m, "t", "r", &["s"]).observe(&call("x"));
    let labels = r#"method="tools/call",outcome="ok",route="r",server="s",tenant="t""#;
    assert_line(&m, &format!("tollgate_requests_total{{{labels}}} 2"));
}

#[test]
fn an_open_stream_keeps_the_series_of_its_route() {
    let m = metrics(Caps::default());
    let r = route(&m, "t", "r", &["s"]);
    let stream = r.stream();
    drop(r);
    m.sweep();
    m.sweep();
    m.sweep();
    assert_line(&m, r#"tollgate_streams{route="r",tenant="t"} 1"#);
    drop(stream);
    assert_line(&m, r#"tollgate_streams{route="r",tenant="t"} 0"#);
}

#[test]
fn targets_show_health_and_load() {
    let m = metrics(Caps::default());
    let target = m.target(&"t".into(), &"s".into(), &"a:1".into());
    target.set_healthy();
    let exchange = target.exchange();
    assert_line(&m, r#"tollgate_target_in_flight{server="s",target="a:1",tenant="t"} 1"#);
    drop(exchange);
    target.set_unhealthy();
    assert_line(&m, r#"tollgate_target_in_flight{server="s",target="a:1",tenant="t"} 0"#);
    assert_line(&m, r#"tollgate_target_healthy{server="s",target="a:1",tenant="t"} 0"#);
}

#[test]
fn the_age_of_keys_grows_until_they_are_fetched_again() {
    let clock = Clock::manual(1_700_000_000);
    let m = Metrics::new(Caps { issuers: 1, ..Caps::default() }, clock.clone(), "1");
    m.jwks_fetched("corp");
    m.jwks_fetched("past the cap");
    clock.advance(Duration::from_secs(90));
    assert_line(&m, r#"tollgate_jwks_age_seconds{issuer="corp"} 90"#);
    m.jwks_fetched("corp");
    assert_line(&m, r#"tollgate_jwks_age_seconds{issuer="corp"} 0"#);
    assert!(!m.render().contains("past the cap"));
    m.jwks_forgotten("corp");
    assert!(!m.render().contains("corp"));
}

#[test]
fn reloads_show_their_outcome() {
    let m = metrics(Caps::default());
    m.config_revision(42);
    m.config_reloaded(ReloadOutcome::Applied);
    assert_line(&m, "tollgate_config_reload_success 1");
    m.config_reloaded(ReloadOutcome::Rejected);
    assert_line(&m, "tollgate_config_reload_success 0");
    assert_line(&m, "tollgate_config_revision 42");
    assert_line(&m, r#"tollgate_config_reloads_total{outcome="rejected"} 1"#);
    assert_line(&m, r#"tollgate_build_info{version="1.2.3"} 1"#);
}

#[test]
fn label_values_cannot_break_the_format() {
    let m = metrics(Caps::default());
    route(&m, "t", "a\"b\\c\nd", &["s"]).policy_denied();
    assert_line(&m, r#"tollgate_policy_denials_total{route="a\"b\\c\nd",tenant="t"} 1"#);
}

#[test]
fn requests_without_a_route_are_counted() {
    let m = metrics(Caps::default());
    m.unrouted().observe(&Sample {
        server: None,
        method: Method::None,
        outcome: Outcome::NotFound,
        ..call("x")
    });
    let labels = r#"method="none",outcome="not_found",route="",server="",tenant="""#;
    assert_line(&m, &format!("tollgate_requests_total{{{labels}}} 1"));
}
