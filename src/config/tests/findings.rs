//! Findings about syntax, keys, types and references.

use proptest::prelude::*;

use super::*;

#[test]
fn an_unknown_key_is_reported_with_the_nearest_one() {
    let text = BASE.replace("    http:", "    balence: weighted\n    http:");
    expect(
        &text,
        "unknown-key",
        "balence",
        &["servers[0].balence", "did you mean `balance`?", "expected: one of"],
    );
}

#[test]
fn a_key_that_belongs_one_level_down_is_said_to() {
    let text = format!("{BASE}listeners:\n  mcp: {{ max_body: 4MiB }}\n");
    expect(&text, "unknown-key", "max_body", &["did you mean `limits.max_body`?"]);
}

#[test]
fn every_unknown_key_is_reported_in_one_run() {
    let text = BASE
        .replace("    http:", "    one: 1\n    two: { three: 3 }\n    http:")
        .replace("version: 1", "version: 1\nfour: 4");
    let loaded = load_text(&text);
    let keys: Vec<&str> =
        loaded.diagnostics.iter().filter(|d| d.code == "unknown-key").map(|d| d.path.as_str()).collect();
    assert_eq!(keys, ["four", "servers[0].one", "servers[0].two"]);
}

#[test]
fn what_a_later_version_may_do_is_refused_in_so_many_words() {
    for (text, at) in [
        (BASE.replace("    http:", "    stdio: { command: npx }\n    http:"), "stdio"),
        (BASE.replace("    http:", "    openapi: {}\n    http:"), "openapi"),
        (BASE.replace("servers: [weather] }", "servers: [weather], prefix: always }"), "prefix"),
        (
            BASE.replace("servers: [weather]", "servers: [{ name: weather, tools: {} }]"),
            "{ name: weather, tools",
        ),
    ] {
        expect(&text, "unsupported", at, &["not supported by this version", "help: "]);
    }
    let two = BASE.replace("servers: [weather]", "servers: [weather, weather]");
    expect(
        &two,
        "unsupported",
        "servers: [weather, weather]",
        &["several servers behind one route", "exactly one server"],
    );
}

#[test]
fn a_key_given_twice_is_an_error() {
    let text = BASE.replace("    http:", "    era: auto\n    era: legacy\n    http:");
    expect(&text, "duplicate-key", "era: legacy", &["key `era` is given twice", "the first is on line 4"]);
}

#[test]
fn a_missing_key_is_reported_at_its_map() {
    let text = BASE.replace("{ name: weather, servers", "{ servers");
    expect(&text, "missing-key", "{ servers", &["key `name` is missing", "expected: a name"]);
    expect("servers: []\n", "missing-key", "servers", &["key `version` is missing", "`version: 1`"]);
}

#[test]
fn a_key_without_a_value_is_an_error_and_not_an_absence() {
    let text = BASE.replace("servers: [weather] }", "servers: [weather], policy: }");
    let loaded = load_text(&text);
    assert!(only(&loaded, "no-value").to_string().contains("remove the key, or give it a value"));
    assert!(loaded.validated.is_none());
}

#[test]
fn numbers_need_units() {
    let text = BASE.replace("    http:", "    slow_start: 10\n    http:");
    expect(&text, "wrong-type", "10", &["found a number", "write `10s`"]);
    let text = format!("{BASE}listeners: {{ mcp: {{ limits: {{ max_body: 4MB }} }} }}\n");
    expect(&text, "bad-value", "4MB", &["`4MB` is not of the right form", "write `4MiB`"]);
    let text = format!("{BASE}limits: [{{ name: x, key: ip, rate: 200 }}]\n");
    expect(&text, "wrong-type", "200", &["write `200/m`"]);
}

#[test]
fn a_value_of_the_wrong_type_says_how_to_write_it() {
    let text = format!("{BASE}runtime: {{ data_threads: \"4\" }}\n");
    expect(&text, "wrong-type", "\"4\"", &["a whole number from 0 to 1024", "remove the quotes"]);
    let text = format!("{BASE}insecure_options: {{ open: yes }}\n");
    expect(&text, "wrong-type", "yes", &["`true` or `false`", "write `true`"]);
    let text = BASE.replace("servers: [weather]", "servers: weather");
    expect(&text, "wrong-type", "weather }", &["a list", "write `[weather]`"]);
    let policy = |tools: &str| {
        format!("{BASE}policies: [{{ name: p, rules: [{{ allow: {{ tools: {tools} }} }}] }}]\n")
    };
    for (written, hint) in
        [("\"*\"", "write `[\"*\"]`"), ("\"a, b\"", "write `[\"a, b\"]`"), ("no-1", "write `[no-1]`")]
    {
        expect(&policy(written), "wrong-type", &format!("{written} }}"), &["a list", hint]);
    }
    let text = BASE.replace("routes:\n  - {", "routes:\n    {");
    expect(&text, "wrong-type", "{ name: weather", &["found a map", "start each entry with `- `"]);
    let text = format!("{BASE}data_dir: 5\n");
    expect(&text, "wrong-type", "5\n", &["put it in quotes: `\"5\"`"]);
    expect("- a\n", "wrong-type", "- a", &["found a list", "expected: a map"]);
}

#[test]
fn a_choice_that_is_none_says_which_there_are() {
    let text = BASE.replace("    http:", "    balance: peak-ewna\n    http:");
    expect(&text, "bad-value", "peak-ewna", &["one of `hash`, `least_request`", "did you mean `peak_ewma`?"]);
    let text = BASE.replace("    http:", "    hash: { heder: x }\n    http:");
    expect(&text, "unknown-key", "heder", &["did you mean `header`?"]);
    let text =
        BASE.replace("    http:", "    credential: { bearer: \"${env:TOKEN}\", basic: {} }\n    http:");
    expect(&text, "not-exactly-one", "{ bearer", &["one of `basic`, `bearer`, `header`"]);
}

#[test]
fn numbers_and_lists_have_bounds() {
    let text = format!("{BASE}runtime: {{ data_threads: 5000 }}\n");
    expect(&text, "out-of-range", "5000", &["`5000` is out of range", "from 0 to 1024"]);
    expect(&BASE.replace("version: 1", "version: 2"), "out-of-range", "2", &["a whole number: `1`"]);
    let text = BASE.replace("[\"http://127.0.0.1:9001/mcp\"]", "[]");
    expect(&text, "bad-length", "[]", &["an empty list", "at least one entry"]);
    let text = format!("{BASE}data_dir: \"\"\n");
    expect(&text, "empty", "\"\"", &["an empty text"]);
    let text = format!("{BASE}data_dir: {}\n", "x".repeat(5000));
    expect(&text, "bad-length", "xxxx", &["at most 4096 characters"]);
}

#[test]
fn an_empty_list_in_a_rule_is_not_taken_for_everything() {
    let text = format!("{BASE}policies: [{{ name: p, rules: [{{ allow: {{ roles: [] }} }}] }}]\n");
    expect(&text, "bad-length", "[] }", &["an empty list", "at least one entry"]);
}

#[test]
fn values_with_a_syntax_say_what_it_is() {
    for (text, at, words) in [
        (BASE.replace("- name: weather", "- name: My Weather"), "My Weather", "write `my-weather`"),
        (BASE.replace("http://127.0.0.1:9001/mcp", "127.0.0.1:9001"), "\"127", "start it with `http://`"),
        (
            format!("{BASE}listeners: {{ mcp: {{ address: localhost:80 }} }}\n"),
            "localhost",
            "write `127.0.0.1:80`",
        ),
        (
            format!("{BASE}listeners: {{ mcp: {{ trusted_proxies: [10.1.1.1/8] }} }}\n"),
            "10.1.1.1",
            "write `10.0.0.0/8`",
        ),
        (
            format!("{BASE}listeners: {{ mcp: {{ allowed_hosts: [\"http://a\"] }} }}\n"),
            "\"http://a\"",
            "leave out the scheme",
        ),
    ] {
        expect(&text, "bad-value", at, &[words]);
    }
}

#[test]
fn syntax_errors_have_a_place() {
    expect("version: [1\n", "syntax", "[1", &["not valid YAML", "unclosed bracket"]);
    expect("version: 1\nversion: b: c\n", "syntax", ": c", &["not valid YAML"]);
    expect("a: *missing\n", "syntax", "*missing", &["anchor that is not defined"]);
    expect("a: 1\n---\nb: 2\n", "syntax", "b: 2", &["more than one YAML document"]);
    expect("# nothing\n", "syntax", "#", &["the document is empty"]);
    expect("a: \u{1b}[31m\n", "syntax", "\u{1b}", &["control character"]);
    expect("a: !tag 1\n", "syntax", "1", &["tags are not used"]);
}

#[test]
fn other_encodings_are_named() {
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("version: 1\n".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let loaded = load(&utf16, "x", &sources(), hooks());
    assert!(only(&loaded, "syntax").message.contains("UTF-16"));
    let loaded = load(b"version: 1\nx: \xff\n", "x", &sources(), hooks());
    assert_eq!(only(&loaded, "syntax").line, 2);
    let bom = load(format!("\u{feff}{BASE}").as_bytes(), "x", &sources(), hooks());
    assert!(bom.validated.is_some(), "{}", bom.diagnostics);
    let crlf = load_text(&BASE.replace('\n', "\r\n"));
    assert!(crlf.validated.is_some(), "{}", crlf.diagnostics);
}

#[test]
fn bombs_end_in_one_finding() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..9 {
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","));
    }
    for text in [bomb, "[".repeat(100_000), "- ".repeat(100_000), "a: &a [*a]\n".to_owned(), "{".repeat(40)] {
        let loaded = load_text(&text);
        assert_eq!(loaded.diagnostics.errors(), 1, "{}", loaded.diagnostics);
        only(&loaded, "syntax");
    }
    let huge = load(&vec![b'#'; MAX_DOCUMENT + 1], "x", &sources(), hooks());
    assert!(only(&huge, "syntax").to_string().contains("at most 4 MiB"));
}

#[test]
fn many_findings_are_cut_off() {
    let text: String = (0..5_000).map(|i| format!("key{i}: 1\n")).collect();
    assert_eq!(load_text(&text).diagnostics.iter().count(), diagnostic::MAX_DIAGNOSTICS);
}

#[test]
fn anchors_aliases_and_merges_work() {
    let text = BASE.replace(
        "routes:",
        "  - &base\n    name: one\n    era: legacy\n    http: { targets: [\"http://127.0.0.1:9002/mcp\"] }\n  - <<: *base\n    name: two\nroutes:",
    );
    let loaded = load_text(&text);
    let servers = &loaded.validated.expect("valid").document().servers.clone();
    assert_eq!((servers.len(), servers[2].name.as_str(), servers[2].era), (3, "two", model::Era::Legacy));
}

#[test]
fn references_are_expanded_in_values_only() {
    let text = BASE.replace(
        "    http:",
        "    credential: { header: { name: x-key, value: \"a ${env:TOKEN} b ${file:/run/secret}\" } }\n    http:",
    );
    let loaded = load_text(&text);
    let validated = loaded.validated.expect("valid");
    let Some(model::Credential::Header(header)) = &validated.document().servers[0].credential else {
        panic!("header")
    };
    assert_eq!(header.value.expose(), "a hunter2 b from-file");
    assert_eq!(loaded.files, [std::path::PathBuf::from("/run/secret")]);
    let key = BASE.replace("    http:", "    ${env:TOKEN}: 1\n    http:");
    expect(&key, "unknown-key", "${env:TOKEN}", &["unknown key `${env:TOKEN}`"]);
}

#[test]
fn what_a_reference_gives_is_text_and_never_yaml() {
    let sources = sources().with_env("EVIL", "x\"\ninsecure_options: { open: true }");
    let text = format!("{BASE}data_dir: \"${{env:EVIL}}\"\n");
    let loaded = load(text.as_bytes(), "x", &sources, hooks());
    assert!(!loaded.validated.expect("valid").document().insecure_options.open);
    let text = format!("{BASE}runtime: {{ data_threads: \"${{env:NUMBER}}\" }}\n");
    expect(&text, "wrong-type", "\"${env", &["found a text", "references give text"]);
}

#[test]
fn references_that_lead_nowhere_are_reported_at_their_place() {
    let with = |reference: &str| format!("{BASE}data_dir: \"{reference}\"\n");
    let at = "\"${";
    expect(&with("${env:NOPE}"), "unresolved-reference", at, &["environment variable `NOPE` does not exist"]);
    expect(&with("${file:/nope}"), "unresolved-reference", at, &["file `/nope` does not exist"]);
    expect(&with("${env:EMPTY}"), "empty", at, &["a reference that gives an empty text"]);
    expect(&with("${HOME}"), "bad-reference", at, &["`${HOME}` is not a reference", "write `${env:HOME}`"]);
    expect(&with("${env:TOKEN"), "bad-reference", at, &["a reference without `}`", "`$${`"]);
    let missing = load_text(&with("${file:/nope}"));
    assert_eq!(missing.files, [std::path::PathBuf::from("/nope")], "watched until it appears");
}

#[test]
fn a_doubled_dollar_is_a_literal_one() {
    let loaded = load_text(&format!("{BASE}data_dir: \"a$${{b}}\"\n"));
    assert_eq!(loaded.validated.expect("valid").document().data_dir.to_str(), Some("a${b}"));
}

#[test]
fn big_or_binary_files_are_refused() {
    let text = format!("{BASE}data_dir: \"${{file:/f}}\"\n");
    for (content, words) in
        [(vec![b'x'; MAX_REFERENCED_FILE + 1], "more than 64 KiB"), (vec![0xff], "not text in UTF-8")]
    {
        let loaded = load(text.as_bytes(), "x", &FixedSources::default().with_file("/f", &content), hooks());
        assert!(only(&loaded, "unresolved-reference").message.contains(words));
    }
}

#[test]
fn a_secret_in_the_document_is_refused_and_not_shown() {
    let text = BASE.replace("    http:", "    credential: { bearer: \"hunter2\" }\n    http:");
    expect(&text, "literal-secret", "\"hunter2\"", &["${env:NAME}", "[redacted]"]);
    let number =
        BASE.replace("    http:", "    credential: { basic: { username: u, password: 123456 } }\n    http:");
    let block = BASE
        .replace("    http:", "    credential:\n      bearer: |\n        hunter2\n        more\n    http:");
    let broken = BASE.replace("    http:", "    credential: { bearer: \"hunter2 }\n    http:");
    let other = BASE.replace("    http:", "    credential: { bearer: hunter2, header: 123456 }\n    http:");
    for text in [text, number, block, broken, other] {
        let loaded = load_text(&text);
        assert!(loaded.validated.is_none());
        for shown in
            [loaded.diagnostics.to_string(), loaded.diagnostics.to_json().to_string(), format!("{loaded:?}")]
        {
            assert!(!shown.contains("hunter2") && !shown.contains("123456"), "{shown}");
        }
    }
}

#[test]
fn values_from_outside_are_never_shown() {
    let text = BASE.replace("    http:", "    balance: \"${env:TOKEN}\"\n    era: \"${file:/run/secret}\"\n    slow_start: \"${env:TOKEN}\"\n    http:");
    let loaded = load_text(&text);
    assert_eq!(loaded.diagnostics.errors(), 3);
    let shown = loaded.diagnostics.to_string() + &loaded.diagnostics.to_json().to_string();
    assert!(!shown.contains("hunter2") && !shown.contains("from-file"), "{shown}");
}

#[test]
fn findings_are_rendered_like_a_compiler_renders_them() {
    let text =
        BASE.replace("    http:", "    balence: weighted\n    http:").replace("[weather] }", "[wether] }");
    let golden = "\
error[unknown-key]: unknown key `balence`
 --> tollgate.yaml:4:5
  |
4 |     balence: weighted
  |     ^^^^^^^ servers[0].balence
  |
  = expected: one of `balance`, `breaker`, `catalogue`, `credential`, `dns`, `era`, `hash`, `health`, `http`, `max_in_flight`, `name`, `outlier`, `pool`, `retry`, `slow_start`, `timeouts`
  = help: did you mean `balance`?

error[unknown-name]: there is no server `wether`
 --> tollgate.yaml:7:32
  |
7 |   - { name: weather, servers: [wether] }
  |                                ^^^^^^ routes[0].servers[0]
  |
  = expected: one of `weather`
  = help: did you mean `weather`?

2 errors";
    assert_eq!(load_text(&text).diagnostics.to_string(), golden);
}

#[test]
fn findings_are_also_json() {
    let text = BASE.replace("[weather] }", "[wether] }");
    assert_eq!(
        load_text(&text).diagnostics.to_json(),
        serde_json::json!([{
            "severity": "error",
            "code": "unknown-name",
            "file": "tollgate.yaml",
            "line": 6,
            "column": 32,
            "path": "routes[0].servers[0]",
            "message": "there is no server `wether`",
            "expected": "one of `weather`",
            "hint": "did you mean `weather`?",
            "source": "  - { name: weather, servers: [wether] }",
        }])
    );
}

#[test]
fn long_lines_are_cropped_around_the_place() {
    let text = format!("{BASE}data_dir: [{}, \"x\"]\n", "1, ".repeat(2_000).trim_end_matches(", "));
    let shown = load_text(&text).diagnostics.to_string();
    assert!(shown.lines().all(|line| line.chars().count() < 250), "{shown}");
}

#[test]
fn rules_are_also_checked_on_what_is_right_of_a_wrong_document() {
    let text = BASE
        .replace("    http:", "    nonsense: 1\n    http:")
        .replace("[weather] }", "[wether] }")
        .replace("routes:", "  - { name: broken, http: { targets: [5] } }\n  - { name: late, http: { targets: [\"http://a/\"] }, timeouts: { stream_idle: 1s } }\nroutes:");
    let codes: Vec<&str> = load_text(&text).diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["unknown-key", "wrong-type", "contradiction", "unknown-name"]);
    let found = only(&load_text(&text), "contradiction");
    assert_eq!(found.path, "servers[2].timeouts.stream_idle", "the index is that of the text");
}

#[test]
fn a_reference_to_an_item_that_is_wrong_itself_is_not_dangling() {
    let text = BASE.replace("[\"http://127.0.0.1:9001/mcp\"]", "5");
    let loaded = load_text(&text);
    assert_eq!(loaded.diagnostics.errors(), 1, "{}", loaded.diagnostics);
    let text = BASE.replace("  loopback: { role: developer }", "  api_keys: { fil: x }")
        + "listeners: { mcp: { address: 0.0.0.0:80, public_url: \"https://a\", tls: { cert: a, key: b } } }\n";
    let codes: Vec<&str> = load_text(&text).diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(
        codes,
        ["missing-key", "unknown-key"],
        "identity is there, though wrong: the listener is not open"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_a_document_or_findings(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let loaded = load(&bytes, "x", &sources(), hooks());
        prop_assert!(loaded.validated.is_some() || loaded.diagnostics.has_errors());
        let _ = loaded.diagnostics.to_string();
    }

    #[test]
    fn any_yamlish_text_ends_in_a_document_or_findings(text in "[-a-c:{}\\[\\],\n \"'&*|>#?!$%@`<0-9\\\\]{0,80}") {
        let loaded = load(text.as_bytes(), "x", &sources(), hooks());
        prop_assert!(loaded.validated.is_some() || loaded.diagnostics.has_errors());
        let _ = loaded.diagnostics.to_string();
    }
}

#[test]
fn what_only_the_gateway_sets_is_a_warning_where_a_document_is_looked_at() {
    let text = BASE.replace("http://127.0.0.1:9001/mcp", "http://${env:TOLLGATE_DEMO}/mcp");
    expect(&text, "unresolved-reference", "\"http://${env", &["`TOLLGATE_DEMO`", "does not exist"]);
    let sources = SystemSources::new(|_: &str| None)
        .with_stand_in(Some(("TOLLGATE_DEMO", "127.0.0.1:9100".to_owned())));
    let loaded = load(text.as_bytes(), "exported.yaml", &sources, hooks());
    let found = only(&loaded, "set-by-gateway");
    assert_eq!((found.line, found.column), place(&text, "\"http://${env"));
    let shown = found.to_string();
    for word in ["`TOLLGATE_DEMO`", "127.0.0.1:9100", "servers[0].http.targets[0]", "help: "] {
        assert!(shown.contains(word), "`{word}` is missing in\n{shown}");
    }
    assert!(loaded.validated.is_some(), "{}", loaded.diagnostics);
    // Any other variable is an error still, and one that is set is what it is set to.
    let other = load(text.replace("_DEMO", "_DEMOS").as_bytes(), "x", &sources, hooks());
    assert_eq!(only(&other, "unresolved-reference").severity, Severity::Error);
    let set = SystemSources::new(|_: &str| Some("127.0.0.1:1".to_owned()))
        .with_stand_in(Some(("TOLLGATE_DEMO", "127.0.0.1:9100".to_owned())));
    assert!(load(text.as_bytes(), "x", &set, hooks()).diagnostics.is_empty());
}

#[test]
fn secrets_of_a_store_are_a_warning_where_a_document_is_looked_at() {
    let text = BASE.replace("    http: {", "    credential: { bearer: \"${secret:upstream}\" }\n    http: {");
    let hint = "put it into the store";
    expect(&text, "unresolved-reference", "\"${secret", &["secret `upstream` of tenant `default`", hint]);
    let sources = SystemSources::new(|_: &str| None).without_store(true);
    let loaded = load(text.as_bytes(), "mine.yaml", &sources, hooks());
    let found = only(&loaded, "secret-of-store");
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!((found.line, found.column), place(&text, "\"${secret"));
    assert!(loaded.validated.is_some(), "{}", loaded.diagnostics);
}
