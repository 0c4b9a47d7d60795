//! The scanner against examples, against a second implementation on serde_json, and against hostile bodies.

mod oracle;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn one(body: &str) -> Message<'_> {
    match scan(body.as_bytes()) {
        Ok(Body::One(message)) => message,
        other => panic!("{body}: {other:?}"),
    }
}

fn refused(body: &str) -> ScanError {
    match scan(body.as_bytes()) {
        Err(error) => error,
        Ok(body) => panic!("accepted {body:?}"),
    }
}

fn reason(body: &str) -> Shape {
    match refused(body) {
        ScanError::NotARequest { reason, .. } => reason,
        other => panic!("{body}: {other:?}"),
    }
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":"r-1","method":"tools/call","params":{"name":"get_weather","arguments":{"city":"Zürich","days":[1,2.5e3]},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/logLevel":"info","progressToken":17,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},"requestState":"s\/1","inputResponses":{"a":{"action":"accept"}}}}"#;

#[test]
fn reads_every_member_of_a_modern_call() {
    let message = one(CALL);
    assert_eq!(message.kind, Kind::Request);
    assert_eq!(message.raw.as_str(), CALL);
    assert_eq!(message.id.unwrap().as_str(), r#""r-1""#);
    assert_eq!(message.method_name(), "tools/call");
    let params = &message.params;
    assert_eq!(params.name.as_deref(), Some("get_weather"));
    assert_eq!(params.arguments.unwrap().as_str(), r#"{"city":"Zürich","days":[1,2.5e3]}"#);
    assert_eq!(params.input_responses.unwrap().as_str(), r#"{"a":{"action":"accept"}}"#);
    let state = params.request_state.as_ref().unwrap();
    assert_eq!(state.as_str(), "s/1");
    assert_eq!(&CALL[state.range()], r#""s\/1""#);
    let meta = &params.meta;
    assert_eq!(meta.protocol_version.as_deref(), Some("2026-07-28"));
    assert_eq!(meta.client_capabilities.unwrap().as_str(), r#"{"elicitation":{}}"#);
    assert!(meta.client_info);
    assert_eq!(meta.log_level.as_deref(), Some("info"));
    assert_eq!(meta.progress_token.unwrap().as_str(), "17");
    assert_eq!(meta.traceparent.as_deref(), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    for raw in [params.raw, params.arguments, meta.raw, meta.client_capabilities].map(Option::unwrap) {
        assert_eq!(&CALL[raw.range()], raw.as_str());
    }
}

#[test]
fn reads_the_parameters_of_other_methods() {
    let message = one(
        r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p","uri":"u:{x}"},"argument":{"name":"a","value":""}}}"#,
    );
    assert_eq!(message.params.ref_name.as_deref(), Some("p"));
    assert_eq!(message.params.ref_uri.as_deref(), Some("u:{x}"));
    assert!(message.params.name.is_none(), "a nested name is not the name");
    let message = one(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":-7}}"#);
    assert_eq!(message.kind, Kind::Notification);
    assert_eq!(message.params.request_id.unwrap().as_str(), "-7");
    let message = one(
        r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"taskIds":["a","b\n"]}}}"#,
    );
    let ids: Vec<&str> = message.params.task_ids.iter().map(JsonStr::as_str).collect();
    assert_eq!(ids, ["a", "b\n"]);
    assert!(message.params.notifications.is_some());
    let message = one(
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"uri":"u","taskId":"t","cursor":"","level":"debug","protocolVersion":"2025-11-25"}}"#,
    );
    let params = &message.params;
    assert_eq!(params.uri.as_deref(), Some("u"));
    assert_eq!(params.task_id.as_deref(), Some("t"));
    assert_eq!(params.cursor.as_deref(), Some(""));
    assert_eq!(params.level.as_deref(), Some("debug"));
    assert_eq!(params.protocol_version.as_deref(), Some("2025-11-25"));
}

#[test]
fn members_of_another_type_are_absent() {
    let message = one(
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":7,"uri":null,"ref":[{"name":"n"}],"requestId":1.5,"notifications":null,"_meta":{"progressToken":{},"io.modelcontextprotocol/protocolVersion":2026,"io.modelcontextprotocol/clientCapabilities":[],"io.modelcontextprotocol/clientInfo":1}}}"#,
    );
    let params = &message.params;
    assert!(params.name.is_none() && params.uri.is_none() && params.ref_name.is_none());
    assert!(params.request_id.is_none() && params.notifications.is_none());
    assert!(params.meta.raw.is_some() && params.meta.protocol_version.is_none());
    assert!(params.meta.progress_token.is_none() && params.meta.client_capabilities.is_none());
    assert!(!params.meta.client_info);
}

#[test]
fn null_params_and_meta_are_absent() {
    assert!(one(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#).params.raw.is_none());
    assert!(
        one(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":null}}"#).params.meta.raw.is_none()
    );
}

#[test]
fn keys_are_recognised_through_escapes() {
    let message = one(
        r#"{"\u006asonrpc":"\u0032.0","i\u0064":1,"method":"tools\/call","p\u0061rams":{"n\u0061me":"\ud83d\ude00"}}"#,
    );
    assert_eq!(message.method_name(), "tools/call");
    assert_eq!(message.params.name.as_deref(), Some("😀"));
}

#[test]
fn responses_carry_result_or_error() {
    let response = one(r#"{"jsonrpc":"2.0","id":5,"result":{"roots":[]}}"#);
    assert_eq!(response.kind, Kind::Response(Outcome::Result));
    assert_eq!(response.method_name(), "");
    assert_eq!(one(r#"{"jsonrpc":"2.0","id":5,"error":{}}"#).kind, Kind::Response(Outcome::Error));
    let unreadable = one(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":""}}"#);
    assert!(
        unreadable.id.is_none(),
        "JSON-RPC 2.0 §5: the id of an error about an unreadable request is null"
    );
}

#[test]
fn ids_are_strings_or_integers() {
    for good in ["0", "-0", "12345678901234567890123", r#""""#, r#""\n""#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{good},"method":"ping"}}"#);
        assert_eq!(one(&body).id.unwrap().as_str(), good);
    }
    for bad in ["null", "1.0", "1e3", "{}", "[]", "true"] {
        assert_eq!(reason(&format!(r#"{{"jsonrpc":"2.0","id":{bad},"method":"ping"}}"#)), Shape::Id, "{bad}");
        assert_eq!(reason(&format!(r#"{{"jsonrpc":"2.0","id":{bad},"result":{{}}}}"#)), Shape::Id, "{bad}");
    }
}

#[test]
fn ids_are_bounded() {
    let with =
        |length: usize| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "x".repeat(length - 2));
    assert!(scan(with(MAX_ID).as_bytes()).is_ok());
    assert_eq!(reason(&with(MAX_ID + 1)), Shape::IdTooLong);
    let number = "9".repeat(MAX_ID + 1);
    for params in
        [format!(r#"{{"requestId":{number}}}"#), format!(r#"{{"_meta":{{"progressToken":{number}}}}}"#)]
    {
        assert_eq!(
            reason(&format!(r#"{{"jsonrpc":"2.0","method":"x","params":{params}}}"#)),
            Shape::IdTooLong
        );
    }
}

#[test]
fn refuses_what_is_no_message() {
    for (body, expected) in [
        ("5", Shape::NotAnObject),
        (r#"["x"]"#, Shape::NotAnObject),
        ("[[]]", Shape::NotAnObject),
        ("[]", Shape::EmptyBatch),
        ("{}", Shape::Version),
        (r#"{"jsonrpc":"1.0","method":"x"}"#, Shape::Version),
        (r#"{"jsonrpc":2.0,"method":"x"}"#, Shape::Version),
        (r#"{"jsonrpc":"2.0","id":1}"#, Shape::MissingMethod),
        (r#"{"jsonrpc":"2.0","method":1}"#, Shape::Method),
        (r#"{"jsonrpc":"2.0","method":"x","result":1}"#, Shape::Ambiguous),
        (r#"{"jsonrpc":"2.0","method":"x","id":null,"error":{}}"#, Shape::Ambiguous),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, Shape::Ambiguous),
        (r#"{"jsonrpc":"2.0","result":1}"#, Shape::MissingId),
        (r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#, Shape::Error),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":["tool"]}"#, Shape::Params),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":1}"#, Shape::Params),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":[]}}"#, Shape::Meta),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"notifications":{"taskIds":"a"}}}"#,
            Shape::TaskIds,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"notifications":{"taskIds":[1]}}}"#,
            Shape::TaskIds,
        ),
    ] {
        assert_eq!(reason(body), expected, "{body}");
        assert_eq!(refused(body).code(), -32600);
    }
}

#[test]
fn batches_are_bounded() {
    let batch = |count: usize| format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"x"}"#; count].join(" ,\n"));
    for count in [1, MAX_BATCH] {
        let body = batch(count);
        let body = scan(body.as_bytes()).unwrap();
        assert!(matches!(body, Body::Batch(_)));
        assert_eq!(body.messages().len(), count);
        assert!(
            body.messages().iter().all(|message| message.raw.as_str() == r#"{"jsonrpc":"2.0","method":"x"}"#)
        );
    }
    assert_eq!(reason(&batch(MAX_BATCH + 1)), Shape::BatchTooLong);
}

#[test]
fn task_ids_are_bounded() {
    let listen = |count: usize| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
            "params": {"notifications": {"taskIds": vec!["t"; count]}}})
        .to_string()
    };
    assert_eq!(one(&listen(MAX_TASK_IDS)).params.task_ids.len(), MAX_TASK_IDS);
    assert_eq!(reason(&listen(MAX_TASK_IDS + 1)), Shape::TooManyTaskIds);
}

#[test]
fn duplicate_keys_are_refused_at_any_depth_and_through_escapes() {
    let in_arguments = |arguments: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"arguments":{arguments}}}}}"#)
    };
    for (arguments, duplicate) in [
        (r#"{"a":1,"a":1}"#, "a"),
        (r#"{"a":1,"b":1,"\u0061":1}"#, "a"),
        (r#"{"\u0061":1,"a":1}"#, "a"),
        (r#"{"":1,"":1}"#, ""),
        (r#"[[{"x":[{"é":1,"\u00e9":2}]}]]"#, "é"),
        (r#"{"😀":1,"\ud83d\uDE00":2}"#, "😀"),
        (r#"{"\/":1,"/":2}"#, "/"),
        (r#"{"\"":1,"\u0022":2}"#, "\""),
    ] {
        let error = refused(&in_arguments(arguments));
        assert!(
            matches!(&error, ScanError::DuplicateKey { key, .. } if **key == *duplicate),
            "{arguments}: {error}"
        );
        assert_eq!(error.code(), -32600);
    }
    for good in [
        r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#,
        r#"{"a":1,"A":2}"#,
        r#"{"ab":1,"ba":2,"aab":3,"abb":3}"#,
    ] {
        one(&in_arguments(good));
    }
    for (body, key) in [
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#, "id"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","n\u0061me":"b"}}"#, "name"),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":1}}}"#,
            "progressToken",
        ),
    ] {
        assert!(
            matches!(refused(body), ScanError::DuplicateKey { key: found, .. } if *found == *key),
            "{body}"
        );
    }
}

#[test]
fn duplicates_are_found_among_few_and_many_keys() {
    for count in [2, 31, 32, 33, 34, 500] {
        let keys: Vec<String> = (0..count).map(|index| format!("\"key{index:04}\":0")).collect();
        let message = |members: &[String]| {
            format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"arguments":{{{}}}}}}}"#, members.join(","))
        };
        one(&message(&keys));
        for twice in [0, (count - 1) / 2, count - 2] {
            let mut keys = keys.clone();
            keys[count - 1] = keys[twice].replace("key", r"k\u0065y");
            assert!(matches!(refused(&message(&keys)), ScanError::DuplicateKey { .. }), "{count} {twice}");
            keys[count - 1] = keys[twice].clone();
            assert!(matches!(refused(&message(&keys)), ScanError::DuplicateKey { .. }), "{count} {twice}");
        }
    }
}

#[test]
fn an_error_quotes_no_more_than_a_bit_of_a_key() {
    let key = "é".repeat(5000);
    let error = refused(&format!(r#"{{"{key}":1,"{key}":1}}"#));
    assert!(matches!(error, ScanError::DuplicateKey { key, .. } if *key == *"é".repeat(32)));
}

#[test]
fn names_that_differ_in_case_only_are_refused_where_the_gateway_reads() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"x","Method":"y"}"#,
        r#"{"jsonrpc":"2.0","ID":1,"method":"x"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"Name":"y"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"argument\u017f":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"tasKId":"t"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_META":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progresstoken":1}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"ref":{"URI":"u"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"notifications":{"taskids":[]}}}"#,
    ] {
        let error = refused(body);
        assert!(matches!(error, ScanError::AmbiguousKey { .. }), "{body}: {error}");
        assert_eq!(error.code(), -32600);
    }
    one(
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{"Name":1,"name":2},"names":[],"argument":{}}}"#,
    );
}

#[test]
fn refuses_what_is_not_json() {
    for bad in [
        "",
        "nope",
        "{",
        r#"{"jsonrpc":"2.0","method":"x"} x"#,
        r#"{"jsonrpc":"2.0","method":"x",}"#,
        r#"{"jsonrpc":"2.0" "method":"x"}"#,
        r#"{"jsonrpc":"2.0","method":'x'}"#,
        r#"{jsonrpc:"2.0"}"#,
        "\u{feff}{}",
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":01}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":1.}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":.1}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":+1}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":1e}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":-}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":NaN}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":tru}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":"\x"}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":"\u12g4"}}"#,
        r#"{"jsonrpc":"2.0","method":"x","params":{"a":"\u+123"}}"#,
        "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":\"line\nbreak\"}}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":\"a long run of text and then\u{1}\"}}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":[1,\u{c}2]}}",
    ] {
        let error = refused(bad);
        assert!(matches!(error, ScanError::NotJson { .. }), "{bad}: {error:?}");
        assert_eq!(error.code(), -32700);
    }
    assert_eq!(refused(r#"{"jsonrpc":x}"#), ScanError::NotJson { at: 11 });
}

#[test]
fn lone_surrogates_are_refused_and_pairs_are_not() {
    let with = |text: &str| format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"a":"{text}"}}}}"#);
    for bad in
        [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\n", r"\ud800\ud800", r"\ud83d\u0041", r"\udc00\ud800"]
    {
        assert!(matches!(refused(&with(bad)), ScanError::NotJson { .. }), "{bad}");
    }
    one(&with(r"\ud83d\ude00\uFFFF\u0000"));
}

#[test]
fn invalid_utf8_is_refused_anywhere() {
    let body = b"{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":\"\xff\"}}";
    let error = scan(body).unwrap_err();
    assert_eq!(error, ScanError::NotUtf8 { at: 45 });
    assert_eq!(error.code(), -32700);
    assert!(
        matches!(scan(b"{\"a\":\"\xed\xa0\x80\"}"), Err(ScanError::NotUtf8 { .. })),
        "an encoded surrogate"
    );
}

#[test]
fn numbers_are_passed_whatever_their_size() {
    let number = format!("-{}.{}e+{}", "9".repeat(5000), "8".repeat(5000), "7".repeat(50));
    let body = format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"arguments":{number}}}}}"#);
    assert_eq!(one(&body).params.arguments.unwrap().as_str(), number);
}

#[test]
fn nesting_is_bounded_cheaply() {
    let nested = |open: &str, close: &str, levels: usize| {
        // The envelope and `params` are two levels.
        let (open, close) = (open.repeat(levels - 2), close.repeat(levels - 2));
        format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"a":{open}0{close}}}}}"#)
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        one(&nested(open, close, MAX_DEPTH));
        for levels in [MAX_DEPTH + 1, 100_000] {
            let error = refused(&nested(open, close, levels));
            assert!(matches!(error, ScanError::TooDeep { at } if at < 1024), "{error}");
            assert_eq!(error.code(), -32600);
        }
    }
    assert!(matches!(
        refused(&"[".repeat(100_000)),
        ScanError::NotARequest { .. } | ScanError::TooDeep { .. }
    ));
}

#[test]
fn depth_is_per_branch() {
    let branch = format!("{}{}", "[".repeat(100), "]".repeat(100));
    one(&format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"a":[{branch},{branch},{{}},[]]}}}}"#));
}

/// The scanner's work on keys for a body with this `arguments`, which must be acceptable.
fn key_work(arguments: &str) -> usize {
    reader::take_work();
    one(&format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"arguments":{arguments}}}}}"#));
    reader::take_work()
}

#[test]
fn work_on_keys_is_linear_for_one_huge_object() {
    let object = |count: usize| {
        let members: Vec<String> = (0..count).map(|index| format!("\"k{index}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    for count in [10_000, 100_000] {
        let work = key_work(&object(count));
        assert!(work < 8 * count, "{work} steps for {count} keys");
    }
}

#[test]
fn work_on_keys_is_linear_for_a_4_mib_body_of_objects_of_any_size() {
    for keys in [2, 31, 32, 33, 64, 1000] {
        let members: Vec<String> = (0..keys).map(|index| format!("\"{index:03}\":1")).collect();
        let object = format!("{{{}}}", members.join(","));
        let objects = (4 << 20) / object.len();
        let work = key_work(&format!("[{}]", vec![object; objects].join(",")));
        assert!(work < 20 * objects * keys, "{work} steps for {objects} objects of {keys} keys");
    }
}

#[test]
fn large_scratch_is_given_back() {
    let members: Vec<String> = (0..100_000).map(|index| format!("\"k{index}\":0")).collect();
    key_work(&format!("{{{}}}", members.join(",")));
    assert_eq!(reader::scratch_capacity(), 0);
}

#[test]
fn a_4_mib_string_is_found_whole() {
    let text = "x".repeat(4 << 20);
    for end in ["", "\\n", "\\u00e9"] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"name":"{text}{end}"}}}}"#);
        let message = one(&body);
        let name = message.params.name.unwrap();
        assert_eq!(name.range().len(), text.len() + end.len() + 2);
        assert!(name.starts_with(&text) && name.len() <= text.len() + 2);
    }
}

#[test]
fn the_end_of_a_string_is_found_at_every_offset() {
    for length in 0..200 {
        for special in ["\"", "\\\"\"", "\u{1}"] {
            let body = format!(
                r#"{{"jsonrpc":"2.0","method":"{}{special}}}"#,
                "é".repeat(length / 2) + &"y".repeat(length % 2)
            );
            match scan(body.as_bytes()) {
                Ok(Body::One(message)) => assert!(message.method_name().chars().count() >= length / 2),
                Err(error) => assert_eq!(error, ScanError::NotJson { at: 27 + length }, "{body}"),
                Ok(body) => panic!("{body:?}"),
            }
        }
    }
}

/// Any JSON value with hard strings and few distinct keys.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-zé\"\\\\\n/]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[a-c\"\\\\é]{0,3}", inner, 0..40)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Text made of the pieces that messages are made of, mostly invalid and often nearly valid.
fn soup() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        proptest::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "\n",
            "null",
            "true",
            "1",
            "-0",
            "1.5e3",
            "\"\"",
            "\"a\"",
            "\"\\u0061\"",
            "\"id\":",
            "\"Id\":",
            "\"method\":\"x\"",
            "\"params\":{",
            "\"name\":\"n\"",
            "\"_meta\":{",
            "\"result\":",
            "\"error\":{}",
            "\"jsonrpc\":\"2.0\",",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\"",
            "\"\\ud800\"",
            "é",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(pieces, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn extracts_the_same_strings_as_serde_json(
        name in any::<String>(), state in any::<String>(), version in any::<String>(), arguments in value(), pretty in any::<bool>(),
    ) {
        let message = json!({"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": {
            "name": name, "arguments": arguments, "requestState": state, "extra": arguments,
            "_meta": {"io.modelcontextprotocol/protocolVersion": version}}});
        let text = if pretty { serde_json::to_string_pretty(&message) } else { serde_json::to_string(&message) }.unwrap();
        prop_assume!(serde_json::to_string(&name).unwrap().len() <= MAX_ID);
        let message = one(&text);
        prop_assert_eq!(serde_json::from_str::<String>(message.id.unwrap().as_str()).unwrap(), name.clone());
        prop_assert_eq!(message.params.name.as_deref(), Some(&*name));
        prop_assert_eq!(message.params.request_state.as_deref(), Some(&*state));
        prop_assert_eq!(message.params.meta.protocol_version.as_deref(), Some(&*version));
        let raw = message.params.arguments.unwrap();
        // Compared with a parse of the same text: serde_json does not read every f64 back as it wrote it.
        let expected: Value = serde_json::from_str(&arguments.to_string()).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(raw.as_str()).unwrap(), expected);
        prop_assert_eq!(&text[raw.range()], raw.as_str());
    }

    #[test]
    fn accepts_exactly_what_the_oracle_accepts(body in soup()) {
        oracle::compare(body.as_bytes());
    }

    #[test]
    fn mutations_are_judged_as_the_oracle_judges_them(
        arguments in value(), at in any::<proptest::sample::Index>(), byte in any::<u8>(), how in 0..4,
    ) {
        let mut body = CALL.replace(r#"{"city":"Zürich","days":[1,2.5e3]}"#, &arguments.to_string()).into_bytes();
        let at = at.index(body.len());
        match how {
            0 => body[at] = byte,
            1 => body.insert(at, byte),
            2 => drop(body.remove(at)),
            _ => body.truncate(at),
        }
        oracle::compare(&body);
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        oracle::compare(&body);
    }
}
