//! The rules of rules: what matches, what is denied, what is seen, and attempts to get around them.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::base::{Principal, PrincipalId, PrincipalKind, Role, RoleSet, TenantId};

fn principal(role: Role) -> Principal {
    let mut principal = Principal::anonymous(TenantId::default(), role);
    principal.id = PrincipalId::new("corp:bob");
    principal.kind = PrincipalKind::User;
    principal.groups = vec!["staff".into()];
    principal.scopes = vec!["tools:read".into()];
    principal
}

fn call<'a>(principal: &'a Principal, tool: &'a str) -> Facts<'a> {
    Facts {
        tenant: "default",
        route: "everything",
        server: Some("files"),
        principal,
        ip: IpAddr::from([192, 0, 2, 7]),
        method: "tools/call",
        item: Item::Tool(tool),
        arguments: None,
    }
}

fn request<'a>(principal: &'a Principal, method: &'a str, item: Item<'a>) -> Facts<'a> {
    Facts { method, item, ..call(principal, "") }
}

fn allow() -> RuleSpec {
    RuleSpec::new(Effect::Allow)
}

fn deny() -> RuleSpec {
    RuleSpec::new(Effect::Deny)
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn spec(default: Effect, rules: Vec<RuleSpec>) -> PolicySpec {
    PolicySpec { name: "p".into(), default, explain: false, rules }
}

fn policy(default: Effect, rules: Vec<RuleSpec>) -> Policy {
    Policy::compile(&spec(default, rules)).unwrap_or_else(|e| panic!("{e}"))
}

fn tools(mut rule: RuleSpec, list: &[&str]) -> RuleSpec {
    rule.tools = names(list);
    rule
}

fn when(mut rule: RuleSpec, source: &str) -> RuleSpec {
    rule.when = Some(source.to_owned());
    rule
}

// === order and default ===

#[test]
fn the_first_rule_that_matches_decides() {
    let bob = principal(Role::Developer);
    let policy = policy(
        Effect::Deny,
        vec![tools(deny(), &["delete_*"]), tools(allow(), &["*"]), tools(deny(), &["get_x"])],
    );
    assert!(policy.decide(&call(&bob, "get_x")).is_allowed());
    let decision = policy.decide(&call(&bob, "delete_x"));
    assert_eq!(decision.cause, Cause::Rule(RuleRef { index: 0, name: None }));
    assert!(!decision.is_allowed());
}

#[test]
fn bodies_are_recorded_if_the_rule_that_decides_says_so() {
    let bob = principal(Role::Developer);
    let record = |max| Record { request: true, response: false, max, redact: ["pin".into()].into() };
    let recording = |rule: RuleSpec, max| RuleSpec { record: Some(record(max)), ..rule };
    let policy = policy(
        Effect::Deny,
        vec![
            recording(tools(deny(), &["delete_*"]), 1),
            tools(allow(), &["quiet"]),
            recording(when(tools(allow(), &["odd"]), "arguments.path == 'x'"), 2),
            recording(tools(allow(), &["*"]), 3),
        ],
    );
    let max = |facts: &Facts<'_>| policy.recorded(&policy.decide(facts)).map(|record| record.max);
    assert_eq!(max(&call(&bob, "delete_x")), Some(1), "refused");
    assert_eq!(max(&call(&bob, "quiet")), None, "an earlier rule");
    assert_eq!(
        max(&Facts { arguments: Some("{}"), ..call(&bob, "odd") }),
        Some(2),
        "it failed, and so decided"
    );
    assert_eq!(max(&call(&bob, "other")), Some(3));
    assert_eq!(max(&request(&bob, "tools/list", Item::None)), None, "the default");
}

#[test]
fn without_a_matching_rule_the_default_decides() {
    let bob = principal(Role::Developer);
    for (default, want) in [(Effect::Allow, true), (Effect::Deny, false)] {
        let policy = policy(default, vec![tools(deny(), &["other"])]);
        let decision = policy.decide(&call(&bob, "get_x"));
        assert_eq!((decision.is_allowed(), decision.cause), (want, Cause::Default));
    }
}

#[test]
fn default_deny_lets_clients_connect_and_list_but_reach_nothing() {
    let bob = principal(Role::Viewer);
    let policy = policy(Effect::Deny, vec![tools(allow(), &["get_*"])]);
    for method in [
        "initialize",
        "server/discover",
        "ping",
        "notifications/initialized",
        "tools/list",
        "resources/templates/list",
        "logging/setLevel",
        "tasks/get",
    ] {
        assert_eq!(policy.decide(&request(&bob, method, Item::None)).cause, Cause::OpenMethod, "{method}");
    }
    for (method, item) in [
        ("prompts/get", Item::Prompt("get_x")),
        ("resources/read", Item::Resource("file:///x")),
        ("resources/subscribe", Item::Resource("file:///x")),
        ("completion/complete", Item::Prompt("p")),
        ("subscriptions/listen", Item::Resource("file:///x")),
        ("custom/method", Item::None),
        ("Tools/List", Item::None),
        ("tools/list ", Item::None),
        ("", Item::None),
    ] {
        assert!(!policy.decide(&request(&bob, method, item)).is_allowed(), "{method}");
    }
    assert!(policy.decide(&call(&bob, "get_x")).is_allowed());
}

#[test]
fn a_rule_may_deny_open_methods() {
    let bob = principal(Role::Viewer);
    let banned = policy(Effect::Allow, vec![RuleSpec { principals: names(&["corp:bob"]), ..deny() }]);
    assert!(!banned.decide(&request(&bob, "initialize", Item::None)).is_allowed());
    let no_lists = policy(Effect::Deny, vec![RuleSpec { methods: names(&["*/list"]), ..deny() }]);
    assert!(!no_lists.decide(&request(&bob, "tools/list", Item::None)).is_allowed());
    assert!(no_lists.decide(&request(&bob, "initialize", Item::None)).is_allowed());
}

// === fields ===

#[test]
fn every_field_must_match_and_any_entry_suffices() {
    let bob = principal(Role::Developer);
    let rule = RuleSpec {
        roles: vec![Role::Admin, Role::Developer],
        kinds: vec![PrincipalKind::User],
        principals: names(&["corp:*"]),
        groups: names(&["x", "staff"]),
        scopes: names(&["tools:*"]),
        methods: names(&["tools/call"]),
        tools: names(&["get_?", "list_*"]),
        servers: names(&["files"]),
        cidrs: vec!["192.0.2.0/24".parse().unwrap()],
        when: Some("route == 'everything'".into()),
        ..allow()
    };
    let matches = |change: &dyn Fn(&mut RuleSpec)| {
        let mut rule = rule.clone();
        change(&mut rule);
        policy(Effect::Deny, vec![rule]).decide(&call(&bob, "get_x")).is_allowed()
    };
    assert!(matches(&|_| {}));
    let changes: [&dyn Fn(&mut RuleSpec); 10] = [
        &|r| r.roles = vec![Role::Admin],
        &|r| r.kinds = vec![PrincipalKind::Key],
        &|r| r.principals = names(&["Corp:bob"]),
        &|r| r.groups = names(&["Staff"]),
        &|r| r.scopes = names(&["tools"]),
        &|r| r.methods = names(&["tools/list"]),
        &|r| r.tools = names(&["get_??"]),
        &|r| r.servers = names(&["file"]),
        &|r| r.cidrs = vec!["192.0.3.0/24".parse().unwrap()],
        &|r| r.when = Some("route == 'other'".into()),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        assert!(!matches(change), "change {i}");
    }
    let empties: [&dyn Fn(&mut RuleSpec); 10] = [
        &|r| r.roles.clear(),
        &|r| r.kinds.clear(),
        &|r| r.principals.clear(),
        &|r| r.groups.clear(),
        &|r| r.scopes.clear(),
        &|r| r.methods.clear(),
        &|r| r.tools.clear(),
        &|r| r.servers.clear(),
        &|r| r.cidrs.clear(),
        &|r| r.when = None,
    ];
    for (i, change) in empties.into_iter().enumerate() {
        assert!(matches(change), "empty means any: {i}");
    }
}

#[test]
fn a_star_does_not_match_what_is_not_there() {
    let mut bob = principal(Role::Developer);
    bob.groups.clear();
    bob.scopes.clear();
    for rule in [
        RuleSpec { groups: names(&["*"]), ..allow() },
        RuleSpec { scopes: names(&["*"]), ..allow() },
        RuleSpec { servers: names(&["*"]), ..allow() },
    ] {
        let policy = policy(Effect::Deny, vec![rule]);
        let facts = Facts { server: None, ..call(&bob, "x") };
        assert!(!policy.decide(&facts).is_allowed());
        assert!(policy.decides_lists(ItemKind::Tool), "so lists must be filtered");
    }
}

#[test]
fn mapped_addresses_match_both_ways() {
    let bob = principal(Role::Developer);
    for net in ["192.0.2.0/24", "::ffff:192.0.2.0/120"] {
        let policy = policy(Effect::Allow, vec![RuleSpec { cidrs: vec![net.parse().unwrap()], ..deny() }]);
        for ip in ["192.0.2.7", "::ffff:192.0.2.7"] {
            let facts = Facts { ip: ip.parse().unwrap(), ..call(&bob, "x") };
            assert!(!policy.decide(&facts).is_allowed(), "{net} {ip}");
        }
        let facts = Facts { ip: "2001:db8::1".parse().unwrap(), ..call(&bob, "x") };
        assert!(policy.decide(&facts).is_allowed());
    }
}

#[test]
fn long_lists_of_names_are_searched() {
    let bob = principal(Role::Developer);
    let mut list: Vec<String> = (0..200).map(|i| format!("tool_{i}")).collect();
    list.push("get_*".into());
    let policy = policy(Effect::Deny, vec![RuleSpec { tools: list, ..allow() }]);
    for (tool, want) in
        [("tool_0", true), ("tool_199", true), ("tool_200", false), ("get_x", true), ("tool_", false)]
    {
        assert_eq!(policy.decide(&call(&bob, tool)).is_allowed(), want, "{tool}");
    }
}

// === items ===

#[test]
fn a_rule_about_tools_says_nothing_about_others() {
    let bob = principal(Role::Developer);
    let policy = policy(Effect::Deny, vec![tools(allow(), &["*"])]);
    assert!(policy.decide(&call(&bob, "x")).is_allowed());
    assert!(!policy.decide(&request(&bob, "prompts/get", Item::Prompt("x"))).is_allowed());
    assert!(!policy.decide(&request(&bob, "resources/read", Item::Resource("x"))).is_allowed());
    let both = RuleSpec { prompts: names(&["p"]), ..tools(allow(), &["t"]) };
    let policy = tests::policy(Effect::Deny, vec![both]);
    assert!(policy.decide(&call(&bob, "t")).is_allowed());
    assert!(!policy.decide(&call(&bob, "p")).is_allowed(), "a prompt's name is not a tool's");
    assert!(policy.decide(&request(&bob, "prompts/get", Item::Prompt("p"))).is_allowed());
    assert!(!policy.decide(&request(&bob, "prompts/get", Item::Prompt("t"))).is_allowed());
}

#[test]
fn expressions_that_read_items_apply_only_to_them() {
    let bob = principal(Role::Developer);
    let policy = policy(Effect::Allow, vec![when(deny(), "!tool.startsWith('get_')")]);
    assert!(!policy.decide(&call(&bob, "delete_x")).is_allowed());
    assert!(policy.decide(&request(&bob, "initialize", Item::None)).is_allowed());
    assert!(policy.decide(&request(&bob, "prompts/get", Item::Prompt("x"))).is_allowed());
    // One that reads arguments cannot fail on requests that never have any.
    let policy = tests::policy(Effect::Allow, vec![when(deny(), "arguments.path == '/etc'")]);
    assert!(policy.decide(&request(&bob, "initialize", Item::None)).is_allowed());
    assert!(policy.decide(&request(&bob, "resources/read", Item::Resource("x"))).is_allowed());
    assert!(!policy.decide(&call(&bob, "x")).is_allowed(), "a missing argument fails, which denies");
}

#[test]
fn calls_without_the_name_of_what_they_call_are_denied() {
    let bob = principal(Role::SuperAdmin);
    let policy = policy(Effect::Allow, vec![allow()]);
    for (method, item) in [
        ("tools/call", Item::None),
        ("tools/call", Item::Prompt("x")),
        ("prompts/get", Item::Tool("x")),
        ("resources/read", Item::None),
        ("resources/subscribe", Item::Tool("x")),
        ("completion/complete", Item::None),
        ("completion/complete", Item::Tool("x")),
    ] {
        assert_eq!(policy.decide(&request(&bob, method, item)).cause, Cause::Malformed, "{method} {item:?}");
    }
    assert_eq!(policy.decide(&call(&bob, &"x".repeat(9_000))).cause, Cause::Malformed, "too long to match");
}

#[test]
fn names_cannot_be_disguised() {
    let bob = principal(Role::Developer);
    // What is denied by name is denied; what looks alike is another name, which an allow list does not let through.
    let policy = policy(Effect::Deny, vec![tools(allow(), &["read_file", "get_*"])]);
    for tool in [
        "Read_file",
        "READ_FILE",
        "read_file ",
        " read_file",
        "read_file\0",
        "read_file\n",
        "read_filе",         // Cyrillic е
        "read_ﬁle",          // ligature
        "read\u{200b}_file", // zero width space
        "r\u{212e}ad_file",  // estimated sign
        "read_file\u{301}",  // combining acute
        "Get_x",
        "\u{feff}get_x",
        "get\u{ff3f}x", // full width low line
        "*",
        "get*",
        "g?t_x",
        "",
    ] {
        assert!(!policy.decide(&call(&bob, tool)).is_allowed(), "{tool:?}");
    }
    for tool in ["read_file", "get_", "get_\u{1f600}", "get_*"] {
        assert!(policy.decide(&call(&bob, tool)).is_allowed(), "{tool:?}");
    }
}

#[test]
fn patterns_that_look_like_other_languages_do_not_compile() {
    for pattern in ["", "get_[a-z]", "{a,b}", "x\\"] {
        let error =
            Policy::compile(&spec(Effect::Allow, vec![deny(), tools(deny(), &["ok", pattern])])).unwrap_err();
        let [error] = error.0.as_slice() else { panic!("one error") };
        assert_eq!((error.rule, error.field), (Some(1), Some(Field::Tools)), "{pattern}");
        assert!(matches!(error.problem, Problem::Pattern { .. }));
    }
}

#[test]
fn every_error_is_reported_with_its_place() {
    let rules = vec![
        tools(allow(), &["a[b]"]),
        when(allow(), "nope == 1"),
        RuleSpec { groups: names(&[""]), ..when(deny(), "tool == 'x' && nope") },
        RuleSpec { resources: names(&["*"]), ..when(deny(), "arguments.x == 1") },
    ];
    let errors = Policy::compile(&spec(Effect::Allow, rules)).unwrap_err();
    let places: Vec<_> = errors.0.iter().map(|e| (e.rule.unwrap(), e.field.unwrap().as_str())).collect();
    assert_eq!(places, [(0, "tools"), (1, "when"), (2, "groups"), (2, "when"), (3, "when")]);
    assert!(errors.to_string().contains("rules[1].when: undeclared `nope`"), "{errors}");
    let Problem::Expression { offset, .. } = &errors.0[3].problem else { panic!("an expression") };
    assert_eq!(*offset, Some(15));
    let many = vec![allow(); 1_001];
    assert!(Policy::compile(&spec(Effect::Allow, many)).is_err());
}

// === expressions ===

#[test]
fn an_expression_that_fails_denies_in_every_rule() {
    let bob = principal(Role::Developer);
    for effect in [Effect::Allow, Effect::Deny] {
        let failing = when(tools(RuleSpec::new(effect), &["*"]), "arguments.n > 5");
        let policy = policy(Effect::Allow, vec![failing, allow()]);
        let facts = Facts { arguments: Some(r#"{"n":"6"}"#), ..call(&bob, "x") };
        let decision = policy.decide(&facts);
        assert!(!decision.is_allowed());
        assert!(matches!(decision.cause, Cause::Failed(_, ExpressionFailure::Evaluation(_))), "{decision:?}");
        assert_eq!(decision.reason(), "expression_failed");
    }
}

#[test]
fn arguments_are_not_parsed_unless_a_matching_rule_reads_them() {
    let bob = principal(Role::Developer);
    let policy = policy(
        Effect::Allow,
        vec![when(tools(deny(), &["write_*"]), "arguments.path == '/etc'"), when(deny(), "tool == 'never'")],
    );
    assert!(policy.reads_arguments());
    let facts = Facts { arguments: Some("not json"), ..call(&bob, "read_x") };
    assert!(policy.decide(&facts).is_allowed());
    let facts = Facts { item: Item::Tool("write_x"), ..facts };
    assert!(matches!(policy.decide(&facts).cause, Cause::Failed(_, ExpressionFailure::InvalidArguments)));
    assert!(!tests::policy(Effect::Allow, vec![when(deny(), "tool == 'x'")]).reads_arguments());
}

#[test]
fn the_example_of_the_design_works() {
    let policy = policy(
        Effect::Deny,
        vec![
            when(tools(deny(), &["*"]), r#"has(arguments.path) && arguments.path.startsWith("/etc")"#),
            RuleSpec { roles: vec![Role::Developer, Role::Admin], ..allow() },
            RuleSpec { roles: vec![Role::Viewer], ..tools(allow(), &["get_*", "list_*"]) },
        ],
    );
    let (developer, viewer) = (principal(Role::Developer), principal(Role::Viewer));
    let with = |who, tool, arguments| policy.decide(&Facts { arguments: Some(arguments), ..call(who, tool) });
    assert!(with(&developer, "read_file", r#"{"path":"/srv/x"}"#).is_allowed());
    assert!(!with(&developer, "read_file", r#"{"path":"/etc/passwd"}"#).is_allowed());
    assert!(!with(&developer, "read_file", r#"{"path":["/etc/passwd"]}"#).is_allowed(), "type confusion");
    assert!(!with(&developer, "read_file", r#"{"pa\u0074h":"\/etc"}"#).is_allowed(), "escapes");
    assert!(with(&viewer, "get_x", "{}").is_allowed());
    assert!(!with(&viewer, "read_file", "{}").is_allowed());
    assert!(policy.visible(&call(&viewer, ""), Item::Tool("get_x")));
    assert!(!policy.visible(&call(&viewer, ""), Item::Tool("read_file")));
    assert!(policy.visible(&call(&developer, ""), Item::Tool("read_file")), "an undecided deny is skipped");
    assert!(policy.decide(&request(&viewer, "initialize", Item::None)).is_allowed());
}

// === lists ===

#[test]
fn rules_that_read_arguments_are_undecided_in_lists() {
    let bob = principal(Role::Developer);
    let list = request(&bob, "tools/list", Item::None);
    let policy = policy(
        Effect::Deny,
        vec![
            when(tools(deny(), &["*"]), "arguments.a == 1"),
            when(tools(allow(), &["maybe"]), "arguments.b == 1"),
            tools(deny(), &["secret"]),
            tools(allow(), &["s*"]),
        ],
    );
    for (tool, want) in [("maybe", true), ("secret", false), ("some", true), ("other", false)] {
        assert_eq!(policy.visible(&list, Item::Tool(tool)), want, "{tool}");
    }
}

#[test]
fn an_expression_that_fails_hides() {
    let bob = principal(Role::Developer);
    let policy = policy(Effect::Allow, vec![when(tools(deny(), &["*"]), "principal.claims.level < 3")]);
    assert!(!policy.visible(&request(&bob, "tools/list", Item::None), Item::Tool("x")));
}

#[test]
fn rules_about_calling_hide_from_lists() {
    let bob = principal(Role::Developer);
    let rule = RuleSpec { methods: names(&["tools/call"]), ..tools(deny(), &["x"]) };
    let policy = policy(Effect::Allow, vec![rule]);
    assert!(!policy.visible(&request(&bob, "tools/list", Item::None), Item::Tool("x")));
    assert!(policy.visible(&request(&bob, "tools/list", Item::None), Item::Tool("y")));
}

#[test]
fn templates_are_seen_if_a_uri_of_theirs_could_be_read() {
    let bob = principal(Role::Developer);
    let resources = |rule: RuleSpec, list: &[&str]| RuleSpec { resources: names(list), ..rule };
    let list = request(&bob, "resources/templates/list", Item::None);
    let sees = |policy: &Policy, text| policy.visible(&list, Item::ResourceTemplate(text));
    let allowed = policy(Effect::Deny, vec![resources(allow(), &["file:///srv/*"])]);
    assert!(sees(&allowed, "file:///{+path}") && sees(&allowed, "file:///srv/{name}.txt"));
    assert!(!sees(&allowed, "http://{host}/") && !sees(&allowed, "file:///etc/{name}"));
    let denied = policy(Effect::Allow, vec![resources(deny(), &["file:///etc/*"])]);
    assert!(sees(&denied, "file:///{+path}") && !sees(&denied, "file:///etc/{name}"));
    let complete = request(&bob, "completion/complete", Item::ResourceTemplate("file:///etc/{name}"));
    assert!(!denied.decide(&complete).is_allowed() && !allowed.decide(&complete).is_allowed());
}

#[test]
fn completions_count_as_access_with_unknown_arguments() {
    let bob = principal(Role::Developer);
    let rule = RuleSpec { prompts: names(&["review"]), ..when(allow(), "arguments.lang == 'en'") };
    let policy = policy(Effect::Deny, vec![rule]);
    let complete = |name| policy.decide(&request(&bob, "completion/complete", Item::Prompt(name)));
    assert!(matches!(complete("review").cause, Cause::Undecided(_)));
    assert!(!complete("other").is_allowed());
    let get = Facts { arguments: Some("{}"), ..request(&bob, "prompts/get", Item::Prompt("review")) };
    assert!(!policy.decide(&get).is_allowed());
}

#[test]
fn decides_lists_only_if_something_could_be_hidden() {
    let all = |policy: &Policy| ItemKind::ALL.map(|kind| policy.decides_lists(kind));
    let check = |default, rules: Vec<RuleSpec>| {
        let policy = policy(default, rules);
        all(&policy)
    };
    assert_eq!(check(Effect::Allow, vec![]), [false; 3]);
    assert_eq!(check(Effect::Deny, vec![]), [true; 3]);
    assert_eq!(check(Effect::Deny, vec![allow()]), [false; 3]);
    assert_eq!(
        check(Effect::Allow, vec![tools(deny(), &["x"])]),
        [false, false, true],
        "prompt, resource, tool"
    );
    assert_eq!(check(Effect::Deny, vec![tools(allow(), &["*"])]), [true, true, false]);
    assert_eq!(check(Effect::Deny, vec![tools(allow(), &["x*"])]), [true; 3]);
    assert_eq!(
        check(Effect::Allow, vec![when(deny(), "arguments.x == 1")]),
        [false; 3],
        "undecided denies show"
    );
    assert_eq!(check(Effect::Allow, vec![when(deny(), "tool == 'x'")]), [false, false, true]);
    assert_eq!(check(Effect::Allow, vec![when(allow(), "principal.claims.x == 1")]), [true; 3], "may fail");
    assert_eq!(check(Effect::Deny, vec![RuleSpec { roles: vec![Role::Admin], ..allow() }]), [true; 3]);
    assert_eq!(check(Effect::Deny, vec![RuleSpec { methods: names(&["tools/list"]), ..allow() }]), [true; 3]);
}

// === analysis and explanation ===

#[test]
fn findings_name_shadowed_and_dead_rules() {
    let find = |rules| policy(Effect::Deny, rules).findings();
    assert_eq!(find(vec![allow(), tools(deny(), &["x"])]), [Finding::Shadowed { rule: 1, by: 0 }]);
    assert_eq!(
        find(vec![tools(allow(), &["get_*"]), tools(deny(), &["get_user", "get_x*"])]),
        [Finding::Shadowed { rule: 1, by: 0 }]
    );
    assert!(find(vec![tools(allow(), &["get_*"]), tools(deny(), &["get_user", "x"])]).is_empty());
    assert!(find(vec![tools(allow(), &["*"]), deny()]).is_empty(), "the second also concerns prompts");
    assert!(find(vec![when(allow(), "tool == 'x'"), tools(deny(), &["x"])]).is_empty());
    let role = |rule, roles: &[Role]| RuleSpec { roles: roles.to_vec(), ..rule };
    assert_eq!(
        find(vec![role(allow(), &[Role::Admin, Role::Viewer]), role(deny(), &[Role::Viewer])]),
        [Finding::Shadowed { rule: 1, by: 0 }]
    );
    assert!(
        find(vec![role(allow(), &[Role::Viewer]), role(deny(), &[Role::Admin, Role::Viewer])]).is_empty()
    );
    assert_eq!(find(vec![role(allow(), &Role::ALL), deny()]), [Finding::Shadowed { rule: 1, by: 0 }]);
    let group = |rule, list: &[&str]| RuleSpec { groups: names(list), ..rule };
    assert!(find(vec![group(allow(), &["*"]), deny()]).is_empty(), "callers without groups reach the second");
    assert_eq!(
        find(vec![group(allow(), &["*"]), group(deny(), &["x"])]),
        [Finding::Shadowed { rule: 1, by: 0 }]
    );
    let net = |rule, net: &str| RuleSpec { cidrs: vec![net.parse().unwrap()], ..rule };
    assert_eq!(
        find(vec![net(allow(), "10.0.0.0/8"), net(deny(), "10.1.0.0/16")]),
        [Finding::Shadowed { rule: 1, by: 0 }]
    );
    assert!(matches!(find(vec![when(allow(), "1 > 2")])[..], [Finding::NeverMatches { rule: 0, .. }]));
    let method = |rule, list: &[&str]| RuleSpec { methods: names(list), ..rule };
    for dead in [&["tools/list"][..], &["prompts/get"], &["ping", "initialize"]] {
        assert!(matches!(
            find(vec![method(tools(deny(), &["x"]), dead)])[..],
            [Finding::NeverMatches { .. }]
        ));
    }
    assert!(find(vec![method(tools(deny(), &["x"]), &["tools/*"])]).is_empty());
    assert_eq!(
        find(vec![when(tools(deny(), &["x"]), "arguments.a == 1 && has(arguments.b) && arguments.b == 2")]),
        [Finding::MayFail { rule: 0, path: "arguments.a".into() }]
    );
}

#[test]
fn explain_says_what_every_rule_did() {
    let bob = principal(Role::Developer);
    let policy = policy(
        Effect::Deny,
        vec![
            RuleSpec { roles: vec![Role::Admin], ..allow() },
            tools(deny(), &["delete_*"]),
            when(tools(deny(), &["*"]), "arguments.path == '/etc'"),
            RuleSpec { name: Some("readers".into()), ..tools(allow(), &["read_*"]) },
            allow(),
        ],
    );
    let facts = Facts { arguments: Some(r#"{"path":"/srv"}"#), ..call(&bob, "read_file") };
    let trace = policy.explain(&facts);
    assert_eq!(trace.decision, policy.decide(&facts));
    assert_eq!(trace.decision.rule(), Some(RuleRef { index: 3, name: Some("readers") }));
    let outcomes: Vec<_> = trace.rules.iter().map(|r| r.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Mismatch(Field::Roles),
            Outcome::Mismatch(Field::Tools),
            Outcome::Mismatch(Field::When),
            Outcome::Matched,
            Outcome::NotReached,
        ]
    );
    let failing = Facts { arguments: None, ..facts };
    assert!(matches!(policy.explain(&failing).rules[2].outcome, Outcome::Failed(_)));
}

// === properties ===

fn any_rule() -> impl Strategy<Value = RuleSpec> {
    let patterns = || prop::collection::vec(prop::sample::select(vec!["*", "a", "b", "a*", "*b", "?"]), 0..3);
    let whens = prop::sample::select(vec![
        None,
        None,
        None,
        Some("tool == 'a'"),
        Some("arguments.x == 1"),
        Some("has(arguments.x) && arguments.x == 1"),
        Some("'staff' in principal.groups"),
    ]);
    (
        any::<bool>(),
        prop::collection::vec(prop::sample::select(Role::ALL.to_vec()), 0..3),
        patterns(),
        prop::collection::vec(prop::sample::select(vec!["tools/call", "tools/*", "*", "prompts/get"]), 0..2),
        prop::collection::vec(prop::sample::select(vec!["staff", "*", "ops"]), 0..2),
        whens,
    )
        .prop_map(|(is_allow, roles, tools, methods, groups, when)| RuleSpec {
            roles,
            tools: names(&tools),
            methods: names(&methods),
            groups: names(&groups),
            when: when.map(str::to_owned),
            ..RuleSpec::new(if is_allow { Effect::Allow } else { Effect::Deny })
        })
}

fn any_caller() -> impl Strategy<Value = Principal> {
    (prop::collection::vec(prop::sample::select(Role::ALL.to_vec()), 1..3), any::<bool>()).prop_map(
        |(roles, grouped)| {
            let mut who = principal(Role::Viewer);
            who.roles = RoleSet::from_iter(roles);
            if !grouped {
                who.groups.clear();
            }
            who
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What can be called with some arguments is listed; what is not filtered hides nothing; what is called shadowed
    /// never decides; and an explanation agrees with the decision.
    #[test]
    fn answers_agree(
        default_allow in any::<bool>(),
        rules in prop::collection::vec(any_rule(), 0..5),
        who in any_caller(),
        tool in prop::sample::select(vec!["a", "b", "ab", "c"]),
    ) {
        let default = if default_allow { Effect::Allow } else { Effect::Deny };
        let policy = policy(default, rules);
        let visible = policy.visible(&request(&who, "tools/list", Item::None), Item::Tool(tool));
        prop_assert!(visible || policy.decides_lists(ItemKind::Tool));
        let dead: Vec<usize> = policy
            .findings()
            .into_iter()
            .filter_map(|f| match f {
                Finding::NeverMatches { rule, .. } | Finding::Shadowed { rule, .. } => Some(rule),
                Finding::MayFail { .. } => None,
            })
            .collect();
        for arguments in [None, Some("{}"), Some(r#"{"x":1}"#), Some(r#"{"x":2}"#)] {
            let facts = Facts { arguments, ..call(&who, tool) };
            let decision = policy.decide(&facts);
            prop_assert!(visible || !decision.is_allowed(), "callable but not listed");
            prop_assert!(decision.rule().is_none_or(|rule| !dead.contains(&rule.index)));
            prop_assert_eq!(policy.explain(&facts).decision, decision);
        }
    }
}
