use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::answer::decides;
use super::region::Cube;
use super::space::{ALL_KINDS, Space, What, facts, role_set};
use super::table::{Chain, pieces};
use super::*;
use crate::auth::{SourceId, SourceScopes};
use crate::base::{Principal, PrincipalId, PrincipalKind, Role, RoleSet, TenantId};
use crate::policy::{COMPLETE, Effect, ItemKind, PolicySpec, Rule, RuleSpec, Scope, When};

fn everyone() -> Source {
    Source {
        name: "everyone".into(),
        kinds: ALL_KINDS.to_vec(),
        id: SourceId::Any,
        roles: (1..64).map(role_set).collect(),
        groups: true,
        scopes: SourceScopes::Any,
        loopback: false,
        authenticated: true,
        mapping: "".into(),
    }
}

fn nobody(role: Role, loopback: bool) -> Source {
    Source {
        name: if loopback { "nobody, from this machine" } else { "nobody" }.into(),
        kinds: vec![PrincipalKind::Anonymous],
        id: SourceId::Exact(if loopback { "loopback" } else { "anonymous" }.into()),
        roles: vec![RoleSet::one(role)],
        groups: false,
        scopes: SourceScopes::None,
        loopback,
        authenticated: false,
        mapping: "".into(),
    }
}

fn gate(default: Effect, rules: Vec<RuleSpec>) -> Gate {
    let spec = PolicySpec { name: "p".into(), default, explain: false, rules };
    Gate {
        tenant: "default".into(),
        route: "r".into(),
        url: "http://x/mcp/r".into(),
        server: "s".into(),
        policy: Some(Arc::new(Policy::compile(&spec).unwrap())),
        methods: Vec::new(),
        scopes: Vec::new(),
        audiences: Vec::new(),
        sources: vec![everyone()],
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn allow() -> RuleSpec {
    RuleSpec::new(Effect::Allow)
}

fn deny() -> RuleSpec {
    RuleSpec::new(Effect::Deny)
}

fn tools(rule: RuleSpec, list: &[&str]) -> RuleSpec {
    RuleSpec { tools: names(list), ..rule }
}

// === answers ===

#[test]
fn callers_are_named_with_what_sets_them_apart() {
    let gate = gate(
        Effect::Deny,
        vec![
            tools(deny(), &["delete_all"]),
            RuleSpec { roles: vec![Role::Admin], ..allow() },
            RuleSpec { groups: names(&["ops-*"]), ..tools(allow(), &["delete_*"]) },
        ],
    );
    let answer = who_can_call(std::slice::from_ref(&gate), "delete_*").unwrap();
    assert_eq!(answer.verdict, Verdict::Always);
    let classes = &answer.routes[0].classes;
    let mut said: Vec<String> = classes.iter().map(|c| format!("{:?}", c.only)).collect();
    said.sort();
    assert_eq!(
        said,
        [
            r#"{"groups": "ops-*", "requests": "not tools delete_all"}"#,
            r#"{"requests": "not tools delete_all", "roles": "admin"}"#
        ]
    );
    assert_eq!(who_can_call(&[gate], "delete_all").unwrap().verdict, Verdict::Never);
}

#[test]
fn rules_that_cover_a_question_only_together_leave_nothing() {
    let two =
        vec![tools(deny(), &["?*"]), tools(deny(), &["*?"]), RuleSpec { tools: names(&["x*"]), ..allow() }];
    assert_eq!(who_can_call(&[gate(Effect::Deny, two)], "*").unwrap().verdict, Verdict::Never);
    let roles = vec![
        RuleSpec { kinds: vec![PrincipalKind::User, PrincipalKind::Key], ..deny() },
        RuleSpec { kinds: vec![PrincipalKind::Anonymous, PrincipalKind::Service], ..deny() },
    ];
    assert_eq!(who_can_call(&[gate(Effect::Allow, roles)], "*").unwrap().verdict, Verdict::Never);
    let networks = |list: [&str; 3]| {
        let cidrs = list.iter().map(|net| net.parse().unwrap()).collect();
        gate(Effect::Allow, vec![RuleSpec { cidrs, ..deny() }])
    };
    assert_eq!(
        who_can_call(&[networks(["0.0.0.0/1", "128.0.0.0/1", "::/0"])], "*").unwrap().verdict,
        Verdict::Never
    );
    let one = who_can_call(&[networks(["0.0.0.0/1", "128.0.0.0/2", "::/0"])], "*").unwrap();
    assert_eq!(one.routes[0].classes[0].witness.ip, "192.0.2.1".parse::<IpAddr>().unwrap());
}

#[test]
fn conditions_that_decide_are_named_and_others_are_not() {
    let when = |rule, text: &str| RuleSpec { when: Some(text.to_owned()), ..rule };
    let open = gate(
        Effect::Deny,
        vec![
            when(tools(deny(), &["*"]), "arguments.a == 1"),
            when(tools(allow(), &["*"]), "arguments.b == 1"),
            when(tools(deny(), &["*"]), "arguments.c == 1"),
        ],
    );
    let answer = who_can_call(&[open], "x").unwrap();
    let class = &answer.routes[0].classes[0];
    assert_eq!((answer.verdict, class.otherwise), (Verdict::If, Some("deny")));
    let named: Vec<&str> = class.conditions.iter().map(|c| c.when.as_str()).collect();
    assert_eq!(named, ["arguments.a == 1", "arguments.b == 1"]);
    let twice = gate(
        Effect::Deny,
        vec![
            when(tools(deny(), &["*"]), "arguments.a == 1"),
            when(tools(allow(), &["*"]), "arguments.a == 1"),
        ],
    );
    assert_eq!(who_can_call(&[twice], "x").unwrap().verdict, Verdict::Never);
}

#[test]
fn nobody_reaches_what_only_the_authenticated_may() {
    let rules = vec![RuleSpec { roles: vec![Role::Viewer], ..tools(allow(), &["get_*"]) }];
    let closed = Gate {
        sources: vec![everyone(), nobody(Role::Anonymous, false)],
        ..gate(Effect::Deny, rules.clone())
    };
    assert_eq!(unauthenticated(&[closed]).unwrap().verdict, Verdict::Never);
    let open = Gate { sources: vec![nobody(Role::Viewer, true)], ..gate(Effect::Deny, rules) };
    let answer = unauthenticated(&[open]).unwrap();
    let class = &answer.routes[0].classes[0];
    assert_eq!(class.callers, "nobody, from this machine");
    assert!(class.witness.ip.is_loopback() && !class.authenticated);
    assert_eq!(class.only["requests"], "tools get_*");
    let scoped = Gate {
        sources: vec![nobody(Role::Viewer, false)],
        scopes: vec!["mcp".into()],
        policy: None,
        ..gate(Effect::Deny, Vec::new())
    };
    assert_eq!(unauthenticated(&[scoped]).unwrap().verdict, Verdict::Never, "they have no scopes");
}

#[test]
fn keys_have_only_the_scopes_that_keys_can_have() {
    let keys = Source { scopes: SourceScopes::Keys, ..everyone() };
    let scoped = |scope: &str| Gate {
        sources: vec![keys.clone()],
        scopes: vec![scope.into()],
        policy: None,
        ..gate(Effect::Deny, Vec::new())
    };
    assert_eq!(who_can_call(&[scoped("mcp:read")], "*").unwrap().verdict, Verdict::Never);
    assert_eq!(who_can_call(&[scoped("tools:x")], "*").unwrap().verdict, Verdict::Always);
}

#[test]
fn what_is_new_is_exactly_the_difference() {
    let before = gate(Effect::Deny, vec![tools(allow(), &["get_*"])]);
    let after = gate(Effect::Deny, vec![tools(allow(), &["get_*", "list_*"])]);
    assert_eq!(
        newly_allowed(std::slice::from_ref(&after), std::slice::from_ref(&before)).unwrap().verdict,
        Verdict::Never
    );
    let answer = newly_allowed(std::slice::from_ref(&before), std::slice::from_ref(&after)).unwrap();
    let class = &answer.routes[0].classes[0];
    assert_eq!(answer.verdict, Verdict::Always);
    assert_eq!(class.witness.tool.as_deref(), Some("list_"));
    let moved = Gate { server: "other".into(), ..before.clone() };
    assert_eq!(newly_allowed(&[before], &[moved]).unwrap().verdict, Verdict::Always, "another server");
}

#[test]
fn a_caller_without_credentials_is_the_same_caller_under_another_role() {
    let rules = vec![tools(allow(), &["get_*"])];
    let with = |sources: Vec<Source>| Gate { sources, ..gate(Effect::Deny, rules.clone()) };
    let before = with(vec![nobody(Role::Anonymous, true), nobody(Role::Anonymous, false)]);
    let after = with(vec![nobody(Role::Developer, true), nobody(Role::Viewer, false)]);
    assert_eq!(newly_allowed(&[before], std::slice::from_ref(&after)).unwrap().verdict, Verdict::Never);
    let closed = with(vec![everyone()]);
    assert_eq!(newly_allowed(&[closed], &[after]).unwrap().verdict, Verdict::Always);
}

#[test]
fn a_changed_mapping_of_roles_is_never_called_nothing() {
    let before = gate(Effect::Deny, Vec::new());
    let mut after = before.clone();
    after.sources[0].mapping = "another".into();
    let answer = newly_allowed(&[before], &[after]).unwrap();
    assert_eq!((answer.verdict, answer.identity_changes.len()), (Verdict::If, 1));
}

#[test]
fn conditions_that_two_configurations_share_cancel_out() {
    let when = |rule, text: &str| RuleSpec { when: Some(text.to_owned()), ..rule };
    let before = gate(Effect::Deny, vec![when(tools(allow(), &["*"]), "arguments.a == 1")]);
    let narrower =
        gate(Effect::Deny, vec![tools(deny(), &["x"]), when(tools(allow(), &["*"]), "arguments.a == 1")]);
    let other = gate(Effect::Deny, vec![when(tools(allow(), &["*"]), "arguments.b == 1")]);
    assert_eq!(newly_allowed(std::slice::from_ref(&before), &[narrower]).unwrap().verdict, Verdict::Never);
    assert_eq!(newly_allowed(&[before], &[other]).unwrap().verdict, Verdict::If);
}

// === properties ===

fn some(words: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..=most)
        .prop_map(|list| list.into_iter().map(str::to_owned).collect())
}

fn any_rule() -> impl Strategy<Value = RuleSpec> {
    let whens = prop::sample::select(vec![
        None,
        None,
        None,
        Some("tool == 'a'"),
        Some("has(arguments.x) && arguments.x == 1"),
        Some("'ops' in principal.groups"),
        Some("principal.claims.level > 1"),
    ]);
    let who = (
        prop::collection::vec(prop::sample::select(Role::ALL.to_vec()), 0..3),
        prop::collection::vec(prop::sample::select(ALL_KINDS.to_vec()), 0..2),
        some(&["a|*", "b", "*c"], 1),
        some(&["ops", "o*", "*"], 1),
        some(&["read", "r*"], 1),
        prop::collection::vec(prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]), 0..2),
    );
    let what = (
        some(&["*", "a", "a*", "*b", "?", "a?*"], 2),
        some(&["a", "*b"], 1),
        some(&["file:*", "*b"], 1),
        some(&["tools/call", "tools/*", "*", "p*"], 1),
        some(&["s", "t*"], 1),
    );
    (any::<bool>(), who, what, whens).prop_map(|(is_allow, who, what, when)| {
        let (roles, kinds, principals, groups, scopes, cidrs) = who;
        let (tools, prompts, resources, methods, servers) = what;
        let mut rule = RuleSpec {
            roles,
            kinds,
            principals,
            groups,
            scopes,
            cidrs: cidrs.iter().map(|net| net.parse().unwrap()).collect(),
            tools,
            prompts,
            resources,
            methods,
            servers,
            when: when.map(str::to_owned),
            ..RuleSpec::new(if is_allow { Effect::Allow } else { Effect::Deny })
        };
        if rule.when.as_deref().is_some_and(|w| w.contains("arguments")) {
            rule.resources.clear();
        }
        rule
    })
}

#[derive(Clone, Debug)]
struct Request {
    what: What,
    principal: Principal,
    ip: IpAddr,
    arguments: Option<&'static str>,
}

fn any_request() -> impl Strategy<Value = Request> {
    let what = (
        prop::sample::select(vec![
            "tools/call",
            "tools/call",
            "tools/call",
            "prompts/get",
            "resources/read",
            "subscriptions/listen",
            COMPLETE,
            "ping",
            "notifications/x",
            "pong",
        ]),
        prop::sample::select(vec!["", "a", "b", "ab", "aab", "c", "file:b", "file:"]),
    );
    let who = (
        1u8..64,
        prop::sample::select(ALL_KINDS.to_vec()),
        prop::sample::select(vec!["a|x", "b", "xc", "a|c", ""]),
        some(&["ops", "other", "dev"], 2),
        some(&["read", "run", "write"], 2),
        prop::sample::select(vec![
            "10.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "2001:db8::7",
            "::ffff:10.1.0.1",
            "::2",
        ]),
    );
    let arguments = prop::sample::select(vec![None, Some("{}"), Some(r#"{"x":1}"#), Some(r#"{"x":"1"}"#)]);
    (what, who, arguments).prop_map(|((method, name), (roles, kind, id, groups, scopes, ip), arguments)| {
        let kind_of = match method {
            "tools/call" => Some(ItemKind::Tool),
            "prompts/get" | COMPLETE => Some(ItemKind::Prompt),
            "resources/read" => Some(ItemKind::Resource),
            "subscriptions/listen" if !name.is_empty() => Some(ItemKind::Resource),
            _ => None,
        };
        Request {
            what: What { method: method.to_owned(), item: kind_of.map(|kind| (kind, name.to_owned())) },
            principal: Principal {
                id: PrincipalId::new(id),
                kind,
                roles: role_set(roles),
                groups: groups.iter().map(|g| g.as_str().into()).collect(),
                scopes: scopes.iter().map(|s| s.as_str().into()).collect(),
                ..Principal::anonymous(TenantId::default(), Role::Viewer)
            },
            ip: ip.parse().unwrap(),
            arguments,
        }
    })
}

/// Whether every rule says the same of both.
fn alike(rules: &[&Rule], same: impl Fn(&Rule) -> bool) -> bool {
    rules.iter().all(|rule| same(rule))
}

/// The one point of the space that a request is part of.
fn locate(space: &Space, gates: &[&Gate], request: &Request) -> [usize; 7] {
    let rules: Vec<&Rule> = gates.iter().flat_map(|g| g.policy.as_ref().unwrap().rules()).collect();
    let (who, ip) = (&request.principal, request.ip.to_canonical());
    let fixed = |m: &str| ["notifications/", "p", ""].iter().position(|p| m.starts_with(p));
    let known = ["tools/call", "prompts/get", "resources/read", "subscriptions/listen", COMPLETE, "ping"];
    let what = space.whats.iter().position(|w| {
        let kind = |w: &What| w.item.as_ref().map(|(kind, _)| *kind);
        let same_method = match known.contains(&request.what.method.as_str()) {
            true => w.method == request.what.method,
            false => {
                let open = |m: &str| crate::policy::is_open_method(m);
                !known.contains(&w.method.as_str())
                    && open(&w.method) == open(&request.what.method)
                    && (fixed(&w.method) == Some(0)) == (fixed(&request.what.method) == Some(0))
            }
        };
        same_method
            && kind(w) == kind(&request.what)
            && alike(&rules, |r| {
                r.matches_item(w.item()).is_ok() == r.matches_item(request.what.item()).is_ok()
                    && r.methods.matches(&w.method) == r.methods.matches(&request.what.method)
            })
    });
    let find = |size: usize, same: &dyn Fn(&Rule, usize) -> bool| {
        (0..size).find(|at| alike(&rules, |rule| same(rule, *at)))
    };
    [
        what,
        ALL_KINDS.iter().position(|kind| *kind == who.kind),
        space.roles.iter().position(|roles| *roles == who.roles),
        find(space.ids.len(), &|r, at| {
            r.principals.matches(&space.ids[at]) == r.principals.matches(who.id.as_str())
        }),
        find(space.groups.len(), &|r, at| {
            r.groups.matches_one_of(&space.groups[at]) == r.groups.matches_one_of(&who.groups)
        }),
        find(space.scopes.len(), &|r, at| {
            r.scopes.matches_one_of(&space.scopes[at]) == r.scopes.matches_one_of(&who.scopes)
        }),
        (0..space.addresses.len()).find(|at| {
            let same = |net: &ipnet::IpNet| net.contains(&space.addresses[*at]) == net.contains(&ip);
            alike(&rules, |r| r.cidrs.iter().all(same)) && space.addresses[*at].is_ipv4() == ip.is_ipv4()
        }),
    ]
    .map(|at| at.expect("no class is missing"))
}

fn holds(cube: &Cube, point: &[usize; 7]) -> bool {
    (0..7).all(|d| cube.0[d].contains(point[d]))
}

/// What a chain says once the expressions are evaluated.
fn concretely(gate: &Gate, chain: &Chain, request: &Request) -> bool {
    let mut facts = facts(gate, &request.what, &request.principal, request.ip);
    facts.arguments = request.arguments;
    let scope = Scope::new(&facts, request.ip.to_canonical());
    for open in &chain.open {
        let When::If(program) = &gate.policy.as_ref().unwrap().rules()[open.rule].when else { panic!() };
        match program.evaluate(&scope) {
            Ok(true) => return open.allows,
            Ok(false) => {}
            Err(_) => return false,
        }
    }
    chain.allows
}

fn decided(gate: &Gate, request: &Request) -> bool {
    let mut facts = facts(gate, &request.what, &request.principal, request.ip);
    facts.arguments = request.arguments;
    gate.policy.as_ref().unwrap().decide(&facts).is_allowed()
}

fn policy() -> impl Strategy<Value = Gate> {
    (any::<bool>(), prop::collection::vec(any_rule(), 0..6)).prop_map(|(default_allow, rules)| {
        gate(if default_allow { Effect::Allow } else { Effect::Deny }, rules)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    /// Every request is in exactly one piece, and is decided as the piece says.
    #[test]
    fn pieces_are_what_the_policy_decides(gate in policy(), requests in prop::collection::vec(any_request(), 1..40)) {
        let space = Space::new([&gate].into_iter(), &[]).unwrap();
        let pieces = pieces(&space, &gate, &space.everything()).unwrap();
        for request in &requests {
            let point = locate(&space, &[&gate], request);
            let found: Vec<_> = pieces.iter().filter(|piece| holds(&piece.cube, &point)).collect();
            prop_assert_eq!(found.len(), 1, "{:?}", request);
            prop_assert_eq!(concretely(&gate, &found[0].chain, request), decided(&gate, request), "{:?}", request);
        }
    }

    /// Nobody means nobody, somebody exists, and whoever may is in a class.
    #[test]
    fn who_can_call_agrees_with_every_request(gate in policy(), requests in prop::collection::vec(any_request(), 1..40)) {
        let answer = who_can_call(std::slice::from_ref(&gate), "a*").unwrap();
        for class in answer.routes.iter().flat_map(|r| &r.classes) {
            let (what, principal) = class.witness.facts.as_ref().unwrap();
            prop_assert!(what.item().name().starts_with('a'));
            if class.verdict == Verdict::Always {
                prop_assert!(decides(&gate, what, principal, class.witness.ip), "{:?}", class);
            }
        }
        for request in &requests {
            let asked = request.what.method == "tools/call" && request.what.item().name().starts_with('a');
            if asked && decided(&gate, request) {
                prop_assert!(answer.verdict != Verdict::Never, "{:?}", request);
                let plain = gate.policy.as_ref().unwrap().rules().iter().all(|r| matches!(r.when, When::Always));
                prop_assert!(!plain || answer.verdict == Verdict::Always);
            }
        }
    }

    /// A witness is allowed now and was not before; and if nothing is new, no request is.
    #[test]
    fn newly_allowed_agrees_with_every_request(
        old in policy(),
        new in policy(),
        requests in prop::collection::vec(any_request(), 1..60),
    ) {
        let answer = newly_allowed(std::slice::from_ref(&old), std::slice::from_ref(&new)).unwrap();
        for class in answer.routes.iter().flat_map(|r| &r.classes).filter(|c| c.verdict == Verdict::Always) {
            let (what, principal) = class.witness.facts.as_ref().unwrap();
            prop_assert!(decides(&new, what, principal, class.witness.ip), "{:?}", class);
            prop_assert!(!decides(&old, what, principal, class.witness.ip), "{:?}", class);
        }
        for request in &requests {
            if decided(&new, request) && !decided(&old, request) {
                prop_assert!(answer.verdict != Verdict::Never, "{:?}", request);
            }
        }
        let same = newly_allowed(std::slice::from_ref(&old), std::slice::from_ref(&old)).unwrap();
        prop_assert_eq!(same.verdict, Verdict::Never);
    }
}
