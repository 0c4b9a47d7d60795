//! The language as rules see it, and attempts to make it hang, crash, lie or leak.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::json;
use super::*;
use crate::base::{Principal, PrincipalId, PrincipalKind, Role, RoleSet, TenantId};
use crate::policy::facts::{Facts, Item};

fn principal() -> Principal {
    let mut principal = Principal::anonymous(TenantId::default(), Role::Developer);
    principal.id = PrincipalId::new("corp:bob");
    principal.kind = PrincipalKind::User;
    principal.roles = RoleSet::from_iter([Role::Developer, Role::Viewer]);
    principal.groups = vec!["staff".into(), "ops".into()];
    principal.scopes = vec!["tools:read".into()];
    principal.issuer = Some("corp".into());
    principal.claims = serde_json::json!({"email": "bob@example.com", "level": 3, "nested": {"a": [1, 2]}});
    principal
}

fn evaluate(source: &str, arguments: &str) -> Result<bool, ExpressionFailure> {
    let program = Program::compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    evaluate_program(&program, arguments)
}

fn evaluate_program(program: &Program, arguments: &str) -> Result<bool, ExpressionFailure> {
    if let Some(constant) = program.constant() {
        return Ok(constant);
    }
    let principal = principal();
    let facts = Facts {
        tenant: "default",
        route: "everything",
        server: Some("files"),
        principal: &principal,
        ip: "192.0.2.7".parse().unwrap(),
        method: "tools/call",
        item: Item::Tool("read_file"),
        arguments: Some(arguments),
    };
    program.evaluate(&Scope::new(&facts, facts.ip))
}

fn refused(source: &str) -> String {
    match Program::compile(source) {
        Ok(_) => panic!("compiled: {source}"),
        Err(error) => error.message,
    }
}

#[test]
fn every_variable_can_be_read() {
    for source in [
        "principal.id == 'corp:bob'",
        "principal.kind == 'user'",
        "'developer' in principal.roles && size(principal.roles) == 2",
        "'ops' in principal.groups && !('root' in principal.groups)",
        "principal.scopes == ['tools:read']",
        "principal.claims.email.endsWith('@example.com') && principal.claims.level >= 3",
        "principal.claims.nested.a[1] == 2 && !has(principal.claims.missing)",
        "principal.issuer == 'corp'",
        "tenant == 'default' && route == 'everything' && server == 'files' && method == 'tools/call'",
        "tool == 'read_file' && prompt == '' && resource == ''",
        "ip.startsWith('192.0.2.')",
        "arguments.path == '/srv/x' && arguments.n == 5 && arguments.f == 1.5 && arguments.list.size() == 3",
        "arguments.list.exists(x, x == 2) && arguments.list.all(x, x > 0) && arguments.list.exists_one(x, x == 3)",
        "arguments.list.map(x, x * 2).filter(x, x > 3) == [4, 6]",
        "arguments.big == 18446744073709551615u && arguments.none == null && arguments.yes",
        "tool.matches('^(read|get)_[a-z]+$') && matches(tool, 'file')",
        "type(arguments.path) == string && type(arguments.n) == int && type(arguments.list) == list",
        "int('5') == arguments.n && string(arguments.n) == '5' && double(arguments.n) == 5.0 && bool('true')",
        "arguments['path'] == '/srv/x' && 'path' in arguments && {'a': arguments.n}.a == 5",
        "arguments.escaped == 'a\\n\\u00e9'",
    ] {
        let arguments = r#"{"path":"/srv/x","n":5,"f":1.5,"list":[1,2,3],"big":18446744073709551615,
            "none":null,"yes":true,"escaped":"a\né"}"#;
        assert_eq!(evaluate(source, arguments), Ok(true), "{source}");
    }
}

#[test]
fn undeclared_names_do_not_compile() {
    for (source, want) in [
        ("headers.authorization == 'x'", "undeclared `headers`"),
        ("argument.path == 'x'", "undeclared `argument`"),
        (".arguments.path == 'x'", "undeclared `.arguments`"),
        ("x == 1 || [1].exists(x, x == 1)", "undeclared `x`"),
        ("principal.password == 'x'", "`principal` has no `password`"),
        ("principal == 'x'", "use a field of `principal`"),
        ("has(principal.id)", "always there"),
        ("Tool == 'x'", "undeclared `Tool`"),
        ("tool.lowerAscii() == 'x'", "unknown function `lowerAscii`"),
        ("duration('1s') == duration('1s')", "unknown function `duration`"),
        ("optional.of(tool).hasValue()", "unknown function"),
        ("dyn(tool) == 'x'", "unknown function `dyn`"),
        ("size() == 0", "not called like this"),
        ("tool.size(1) == 0", "not called like this"),
        ("startsWith(tool, 'x')", "not called like this"),
        ("tool.matches(tool)", "must be a literal"),
        ("tool.matches('(')", "not valid"),
        ("tool.matches('(a{1000}){1000}')", "too large"),
        ("google.protobuf.Any{}", "messages"),
        ("[1].exists(tool, tool == 1)", "cannot be the name of a loop variable"),
        ("[1].exists(principal, principal == 1)", "cannot be the name"),
        ("arguments.?path.orValue('') == 'x'", ""),
        ("", ""),
        ("tool ==", ""),
        ("tool == 'x' tool", ""),
        ("1 + 1", "not a boolean"),
        ("1 / 0 == 1", "division by zero"),
    ] {
        let message = refused(source);
        assert!(message.contains(want), "{source}: {message}");
    }
}

#[test]
fn errors_say_where() {
    let offset = |source: &str| Program::compile(source).unwrap_err().offset;
    assert_eq!(offset("tool == 'x' && nope"), Some(15));
    assert_eq!(offset("tool ==\n  'x' && && true"), Some(17));
    assert_eq!(offset("tool == 'x' && frobnicate(tool)"), Some(25));
    let text = "tool == 'é€' && nope";
    assert_eq!(offset(text), text.find("nope"));
    let text = "tool == 'é€' && && true";
    assert_eq!(offset(text), text.find("&& true"));
}

#[test]
fn constants_are_folded_and_others_are_not() {
    let constant = |source: &str| Program::compile(source).unwrap().constant();
    assert_eq!(constant("true"), Some(true));
    assert_eq!(constant("[1, 2].all(x, x > 5)"), Some(false));
    assert_eq!(constant("'abc'.matches('b')"), Some(true));
    assert_eq!(constant("true || tool == 'x'"), None);
}

#[test]
fn knows_what_an_expression_reads() {
    let program = |source: &str| Program::compile(source).unwrap();
    assert!(program("arguments.x == 1").reads_arguments());
    assert!(program("tool == 'x' || [1].exists(x, arguments == x)").reads_arguments());
    assert!(!program("tool == 'arguments'").reads_arguments());
    use crate::policy::facts::ItemKind::{Prompt, Resource, Tool};
    assert!(
        program("tool == 'x'").items().contains(Tool) && !program("tool == 'x'").items().contains(Prompt)
    );
    assert!(program("arguments.x == 1").items().contains(Prompt));
    assert!(!program("arguments.x == 1").items().contains(Resource));
    assert!(program("ip == ''").items().is_empty());
    let unguarded = |source: &str| program(source).unguarded().to_vec();
    assert_eq!(unguarded("arguments.a.b == 1"), ["arguments.a", "arguments.a.b"]);
    assert!(unguarded("has(arguments.a) && arguments.a == 1").is_empty());
    assert!(unguarded("'a' in arguments && arguments['a'] == 1").is_empty());
    assert_eq!(unguarded("principal.claims.x == 1"), ["principal.claims.x"]);
}

#[test]
fn wrong_types_and_missing_keys_fail() {
    for (source, arguments) in [
        ("arguments.path.startsWith('/etc')", r#"{}"#),
        ("arguments.path.startsWith('/etc')", r#"{"path":["/etc"]}"#),
        ("arguments.path.startsWith('/etc')", r#"{"path":{"startsWith":"/etc"}}"#),
        ("arguments.path.startsWith('/etc')", r#"{"path":null}"#),
        ("arguments.path.startsWith('/etc')", r#"{"Path":"/etc"}"#),
        ("has(arguments.path) && arguments.path.startsWith('/etc')", r#""path""#),
        ("has(arguments.path) && arguments.path.startsWith('/etc')", r#"["path"]"#),
        ("has(arguments.path)", "null"),
        ("has(arguments.a.b)", r#"{}"#),
        ("arguments.n + 1 == 2", r#"{"n":1.0}"#),
        ("arguments.n + 1 > 0", r#"{"n":9223372036854775807}"#),
        ("arguments.n > 3", r#"{"n":"4"}"#),
        ("arguments.list[5] == 1", r#"{"list":[1]}"#),
        ("arguments.list[-1] == 1", r#"{"list":[1]}"#),
        ("arguments.n / 0 == 1", r#"{"n":1}"#),
        ("arguments.yes", r#"{"yes":"true"}"#),
        ("arguments.yes", r#"{"yes":1}"#),
        ("!arguments.yes", r#"{"yes":0}"#),
        ("arguments.yes ? true : true", r#"{"yes":null}"#),
        ("arguments.x.all(y, y > 0)", r#"{"x":5}"#),
        ("arguments.x.all(y, y > 0)", r#"{"x":[1,"a"]}"#),
        ("arguments.text.matches('a')", r#"{"text":5}"#),
        ("arguments.n in [1, 2] && arguments.m", r#"{"n":1}"#),
        ("size(arguments.n) > 0", r#"{"n":5}"#),
        ("int(arguments.n) > 0", r#"{"n":"five"}"#),
    ] {
        assert!(evaluate(source, arguments).is_err(), "{source} on {arguments}");
    }
}

#[test]
fn numbers_compare_by_value_and_never_as_nan() {
    for (source, arguments, want) in [
        ("arguments.n == 1", r#"{"n":1.0}"#, true),
        ("arguments.n >= 5", r#"{"n":5e0}"#, true),
        ("arguments.n < 0", r#"{"n":-0.0}"#, false),
        ("arguments.n > 9223372036854775807", r#"{"n":9223372036854775808}"#, true),
        ("arguments.n > 18446744073709551615u", r#"{"n":18446744073709551616}"#, false),
        ("arguments.n > 1000000", r#"{"n":1e300}"#, true),
        // Not a number is unequal to everything, so a rule that says "not the allowed number" matches.
        ("double('NaN') == arguments.n", r#"{"n":1}"#, false),
        ("double('NaN') != arguments.n", r#"{"n":1}"#, true),
    ] {
        assert_eq!(evaluate(source, arguments), Ok(want), "{source} on {arguments}");
    }
    for source in ["double('NaN') < arguments.n", "double('NaN') >= arguments.n"] {
        assert!(evaluate(source, r#"{"n":1}"#).is_err(), "{source}");
    }
    for arguments in [r#"{"n":NaN}"#, r#"{"n":Infinity}"#, r#"{"n":1e999}"#, r#"{"n":01}"#] {
        assert_eq!(evaluate("arguments.n > 0", arguments), Err(ExpressionFailure::InvalidArguments));
    }
}

#[test]
fn text_is_compared_exactly() {
    for (source, arguments) in [
        ("arguments.p == '/etc'", r#"{"p":"/ETC"}"#),
        ("arguments.p == '/etc'", r#"{"p":"/etc\u0000"}"#),
        ("arguments.p == 'é'", r#"{"p":"e\u0301"}"#),
        ("arguments.p == 'a'", r#"{"p":"а"}"#),
        ("has(arguments.path)", r#"{"Path":1,"path ":2}"#),
    ] {
        assert_eq!(evaluate(source, arguments), Ok(false), "{source}");
    }
    assert_eq!(
        evaluate("arguments.p == '/etc'", r#"{"p":"\/\u0065tc"}"#),
        Ok(true),
        "escapes do not hide text"
    );
    assert_eq!(evaluate("has(arguments.path)", r#"{"pa\u0074h":1}"#), Ok(true), "nor keys");
}

#[test]
fn arguments_that_are_not_one_json_document_fail() {
    for arguments in
        ["", "{", "{} {}", r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, "{\"a\":\"\u{1}\"}", "{'a':1}"]
    {
        assert_eq!(
            evaluate("has(arguments.a)", arguments),
            Err(ExpressionFailure::InvalidArguments),
            "{arguments}"
        );
    }
}

#[test]
fn large_arguments_fail() {
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    let list = |n: usize| format!("{{\"a\":[{}]}}", vec!["1"; n].join(","));
    let keys = |n: usize| {
        let keys: Vec<_> = (0..n).map(|i| format!("\"k{i}\":1")).collect();
        format!("{{\"a\":{{{}}}}}", keys.join(","))
    };
    let lists = format!("{{\"a\":[{}]}}", vec![format!("[{}]", vec!["1"; 900].join(",")); 5].join(","));
    let text = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n));
    let source = "has(arguments.a)";
    for fits in [nested(60), list(1_000), keys(1_000), text(65_000)] {
        assert_eq!(evaluate(source, &fits), Ok(true), "{} bytes", fits.len());
    }
    for over in [nested(80), nested(10_000), list(1_001), keys(1_001), lists, text(70_000)] {
        let got = evaluate(source, &over);
        assert!(matches!(got, Err(ExpressionFailure::ArgumentsTooLarge(_))), "{got:?}");
    }
}

#[test]
fn oversized_expressions_do_not_compile() {
    for (source, want) in [
        (format!("tool == '{}'", "x".repeat(2048)), "longer than"),
        (format!("tool in [{}]", vec!["'a'"; 200].join(",")), "more than 128"),
        (format!("{}true{}", "(".repeat(200), ")".repeat(200)), "nest"),
        (format!("{}true", "!".repeat(1000)), "-"),
        (format!("{}1 == 1", "-".repeat(1000)), "-"),
        (format!("arguments{} == 1", ".a".repeat(300)), "nest deeper"),
        (format!("arguments{} == 1", "[0]".repeat(300)), "nest deeper"),
        (format!("1{} == 1", "+1".repeat(900)), "nest deeper"),
        (format!("tool{}", ".size()".repeat(200)), "nest deeper"),
        ("(".repeat(2048), ""),
        ("[".repeat(2048), ""),
        ("{".repeat(2048), ""),
        ("a?".repeat(1000), ""),
        ("[1].map(x,".repeat(180), ""),
        ("\"".repeat(2047), ""),
        ("~".repeat(2048), ""),
        ("(){}[]?:,.".repeat(200), ""),
        (format!("{}true", "true||".repeat(300)), "-"),
    ] {
        let started = Instant::now();
        match Program::compile(&source) {
            Ok(_) => assert_eq!(want, "-", "compiled: {}", &source[..40.min(source.len())]),
            Err(error) => assert!(error.message.contains(want), "{}: {}", &source[..40], error.message),
        }
        assert!(started.elapsed() < Duration::from_secs(1), "{}", &source[..40.min(source.len())]);
    }
}

#[test]
fn comprehensions_nest_two_deep_and_not_three() {
    let deep = |n: usize| {
        let mut body = "1".to_owned();
        for i in 0..n {
            body = format!("[1,2,3].map(v{i}, {body})");
        }
        format!("size({body}) > 0")
    };
    assert!(Program::compile(&deep(2)).is_ok());
    for n in [3, 5] {
        assert!(refused(&deep(n)).contains("comprehensions nest deeper"), "{n}");
    }
    // One after the other is not nested.
    assert!(Program::compile("[1].map(x, x).map(x, x).filter(x, x > 0).all(x, x > 0)").is_ok());
}

/// Every way found to make an evaluation expensive, with arguments that make it worst.
fn hostile() -> Vec<(&'static str, String, String)> {
    let ones = vec!["1"; 1_000].join(",");
    let list = format!("{{\"a\":[{ones}]}}");
    let rows = format!("{{\"a\":[{}]}}", vec![format!("[{}]", vec!["1"; 60].join(",")); 60].join(","));
    let text = format!("{{\"a\":\"{}\"}}", "a".repeat(60_000));
    let texts = format!("{{\"a\":[{}],\"b\":\"{}\"}}", vec!["\"x\""; 900].join(","), "a".repeat(50_000));
    let strings = |n: usize, len: usize| {
        format!("{{\"a\":[{}]}}", vec![format!("\"{}\"", "a".repeat(len)); n].join(","))
    };
    let repeat = |one: &str, n: usize, by: &str| vec![one; n].join(by);
    vec![
        ("nested maps", "arguments.a.map(x, arguments.a.map(y, x)).size() > 0".into(), list.clone()),
        ("nested exists", "arguments.a.exists(x, arguments.a.exists(y, x + y > 9))".into(), list.clone()),
        (
            "absorbed",
            format!("({}) || true", repeat("arguments.a.all(x, arguments.a.all(y, y > 0))", 30, " || ")),
            list.clone(),
        ),
        ("chained maps", format!("arguments.a{}.size() > 0", ".map(x, x)".repeat(18)), list.clone()),
        ("grown lists", format!("size({}) > 0", repeat("arguments.a", 36, " + ")), list.clone()),
        ("doubled text", format!("[arguments.a]{}.size() > 0", ".map(x, x + x)".repeat(17)), text.clone()),
        ("added text", format!("({}).size() > 0", repeat("arguments.a", 36, "+")), text.clone()),
        ("copied rows", format!("size([{}]) > 0", repeat("arguments.a", 120, ",")), rows.clone()),
        ("nested copies", "arguments.a.map(x, [arguments.a, arguments.a]).size() > 0".into(), rows.clone()),
        ("compared rows", "arguments.a.all(x, arguments.a == arguments.a)".into(), rows.clone()),
        (
            "search in loop",
            "arguments.a.exists(x, arguments.b.contains('aaaaaaaaaaaaaaaaab'))".into(),
            texts.clone(),
        ),
        (
            "compare in loop",
            "arguments.a.exists(x, arguments.b + 'a' == arguments.b + 'b')".into(),
            texts.clone(),
        ),
        (
            "pattern in loop",
            "arguments.a.exists(x, arguments.b.matches('(a|aa|aaa)*b$'))".into(),
            texts.clone(),
        ),
        ("big pattern", r"arguments.a.matches('(.*a.{30}){2}b$')".into(), text.clone()),
        ("unicode pattern", r"arguments.a.matches('(\\w+\\d?)+$')".into(), text.clone()),
        ("states", r"arguments.a.matches('(a|b)*a(a|b){12}c')".into(), text.clone()),
        ("texts", "arguments.a.all(x, arguments.a.all(y, x == y))".into(), strings(60, 1_000)),
        ("in", "arguments.a.all(x, x in arguments.a || x == 2)".into(), list.clone()),
        ("errors", "arguments.a.exists(x, arguments.a < x)".into(), rows.clone()),
        ("error copies", "arguments.a.exists(x, arguments.a - x == 1)".into(), rows.clone()),
        ("index errors", "arguments.a.exists(x, arguments.a[0.5] == 1)".into(), rows.clone()),
        (
            "long names",
            format!("arguments.a.all(x, {})", repeat("principal.claims.nested.a.size() > 0", 40, "&&")),
            list.clone(),
        ),
        ("literals", format!("arguments.a.all(x, size([{}]) > 0)", repeat("1", 120, ",")), list.clone()),
        (
            "literal maps",
            format!(
                "arguments.a.all(x, size({{{}}}) > 0)",
                (0..100).map(|i| format!("{i}:x")).collect::<Vec<_>>().join(",")
            ),
            list.clone(),
        ),
        ("conversions", "arguments.a.all(x, string(x) + string(x) != string(x + 1))".into(), list.clone()),
        ("text conversions", "['a'].all(x, int(arguments.a) > 0 || double(arguments.a) > 0.0)".into(), text),
        ("sizes", "arguments.a.all(x, size(arguments.b) > 0)".into(), texts),
        ("ternary", format!("arguments.a.all(x, {}true)", "x == 2 ? false : ".repeat(30)), list),
    ]
}

#[test]
fn no_expression_takes_longer_than_its_fuel() {
    let mut worst = (Duration::ZERO, "");
    for (name, source, arguments) in hostile() {
        let program = Program::compile(&source).unwrap_or_else(|e| panic!("{name}: {e}"));
        let started = Instant::now();
        let result = evaluate_program(&program, &arguments);
        let took = started.elapsed();
        println!("{took:>12?}  {name:<18} {result:?}");
        if took > worst.0 {
            worst = (took, name);
        }
        // Unoptimised, on a busy machine; see benches/policy.rs for what it is in earnest.
        assert!(took < Duration::from_millis(500), "{name} took {took:?}");
    }
    println!("worst: {worst:?}");
}

#[test]
fn running_out_is_not_absorbed() {
    let list = format!("{{\"a\":[{}]}}", vec!["1"; 1_000].join(","));
    let expensive = "arguments.a.all(x, arguments.a.all(y, y > 0))";
    for source in [
        format!("{expensive} || true"),
        format!("!({expensive} && false)"),
        format!("true || {expensive}"),
        format!("{expensive} ? true : true"),
        "[1].exists(z, arguments.a.all(x, arguments.a == [x] || true) || true)".to_owned(),
    ] {
        let want = match source.starts_with("true") {
            true => Ok(true),
            false => Err(ExpressionFailure::OutOfFuel),
        };
        assert_eq!(evaluate(&source, &list), want, "{source}");
    }
    assert_eq!(evaluate("arguments.a.all(x, x == 1)", &list), Ok(true), "the next evaluation starts anew");
}

#[test]
fn ordinary_loops_over_large_lists_fit() {
    let list = format!("{{\"a\":[{}]}}", vec!["\"/srv/data/file.txt\""; 1_000].join(","));
    let source = "arguments.a.all(p, p.startsWith('/srv/') && !p.contains('..') && p.size() < 200)";
    assert_eq!(evaluate(source, &list), Ok(true));
}

#[test]
fn failures_do_not_repeat_data() {
    let secret = "hunter2-secret";
    for (source, arguments) in [
        ("arguments.a + 1 == 1", format!(r#"{{"a":"{secret}"}}"#)),
        ("arguments[arguments.a] == 1", format!(r#"{{"a":"{secret}"}}"#)),
        ("arguments.a < 5", format!(r#"{{"a":"{secret}"}}"#)),
        ("int(arguments.a) == 1", format!(r#"{{"a":"{secret}"}}"#)),
    ] {
        let failure = evaluate(source, &arguments).unwrap_err();
        assert!(!format!("{failure} {failure:?}").contains(secret), "{source}");
    }
}

#[test]
fn claims_are_bounded_and_absent_ones_are_empty() {
    let program = Program::compile("has(principal.claims.admin)").unwrap();
    let mut who = principal();
    let run = |who: &Principal| {
        let facts = Facts {
            tenant: "t",
            route: "r",
            server: None,
            principal: who,
            ip: "::1".parse().unwrap(),
            method: "ping",
            item: Item::None,
            arguments: None,
        };
        program.evaluate(&Scope::new(&facts, facts.ip))
    };
    for claims in [serde_json::Value::Null, serde_json::json!("admin"), serde_json::json!(["admin"])] {
        who.claims = claims;
        assert_eq!(run(&who), Ok(false));
    }
    who.claims = serde_json::json!({"admin": vec![1; 1_001]});
    assert!(matches!(run(&who), Err(ExpressionFailure::ClaimsTooLarge(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever is made of the language's words: it compiles or not, it evaluates or not, in bounded time, and nothing panics.
    #[test]
    fn nothing_panics(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "arguments", ".a", "[0]", "tool", "principal", ".claims", ".exists(x, ", ".map(y, ", "x", "y", ")", "(",
                " && ", " || ", " == ", " + ", " in ", "!", "-", "[", "]", "{", "}", ":", "?", ",", "'a'", "1", "1.5", "null",
                "has(", "size(", ".matches('a+')", "true", "9223372036854775807", " / ", " % ", " < ", "int(", "string(",
            ]),
            1..14,
        ),
        arguments in prop::sample::select(vec!["{}", r#"{"a":[1,[2],{"a":"x"}]}"#, r#"{"a":"text"}"#, "[]", "null"]),
    ) {
        if let Ok(program) = Program::compile(&words.concat()) {
            let _ = evaluate_program(&program, arguments);
        }
    }

    /// Our reading of JSON agrees with serde_json's on what is valid.
    #[test]
    fn agrees_with_serde_json(text in r#"[\[\]{}:,0-9a-b"\\. -]{0,12}"#) {
        let ours = json::parse(&text).is_ok();
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        if ours {
            prop_assert!(theirs);
        } else if theirs {
            // Only a duplicate key is refused beyond that.
            prop_assert!(text.matches('"').count() >= 4);
        }
    }
}
