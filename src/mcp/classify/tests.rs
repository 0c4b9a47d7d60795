use http::{HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const MODERN: &str = "2026-07-28";

/// One request and the route it is sent to, spelled as briefly as a table wants it.
struct Case {
    http: Method,
    headers: HeaderMap,
    body: Option<Body<'static>>,
    session: Option<Version>,
    served: Versions,
}

fn case(body: Option<Body<'static>>) -> Case {
    let http = if body.is_some() { Method::POST } else { Method::GET };
    Case { http, headers: HeaderMap::new(), body, session: None, served: Versions::ALL }
}

fn post(message: Message<'static>) -> Case {
    case(Some(Body::Message(message)))
}

fn request(method: &'static str) -> Message<'static> {
    Message::new(Kind::Request, method)
}

fn meta(mut message: Message<'static>, version: &'static str) -> Message<'static> {
    message.meta_version = Some(version);
    message.client_capabilities = true;
    message
}

fn named(mut message: Message<'static>, name: &'static str) -> Message<'static> {
    message.name = Some(name);
    message.uri = Some(name);
    message.task_id = Some(name);
    message
}

impl Case {
    fn http(mut self, method: Method) -> Self {
        self.http = method;
        self
    }

    fn header(mut self, name: &str, value: &[u8]) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value).unwrap());
        self
    }

    fn version(self, value: &str) -> Self {
        self.header("mcp-protocol-version", value.as_bytes())
    }

    fn method(self, value: &str) -> Self {
        self.header("mcp-method", value.as_bytes())
    }

    fn name(self, value: &str) -> Self {
        self.header("mcp-name", value.as_bytes())
    }

    fn session(mut self, version: Version) -> Self {
        self.session = Some(version);
        self
    }

    fn served(mut self, served: Versions) -> Self {
        self.served = served;
        self
    }

    fn run(&self) -> Result<Classified, Refusal> {
        let headers = Headers::read(&self.headers);
        classify(&Facts { http: &self.http, headers, body: self.body, session: self.session }, self.served)
    }

    #[track_caller]
    fn is(self, era: Era, version: Version, why: &str) {
        assert_eq!(self.run(), Ok(Classified { era, version }), "{why}");
    }

    #[track_caller]
    fn refused(self, code: i32, why: &str) -> Refusal {
        let refusal = self.run().expect_err(why);
        assert_eq!((refusal.status, refusal.code), (StatusCode::BAD_REQUEST, Some(code)), "{why}: {refusal}");
        refusal
    }

    #[track_caller]
    fn not_allowed(self, allow: &str, why: &str) {
        let refusal = self.run().expect_err(why);
        assert_eq!((refusal.status, refusal.code), (StatusCode::METHOD_NOT_ALLOWED, None), "{why}");
        assert_eq!(refusal.allow, Some(allow), "{why}");
    }
}

/// A modern call as a conforming client sends it.
fn call() -> Case {
    post(named(meta(request("tools/call"), MODERN), "greet"))
        .version(MODERN)
        .method("tools/call")
        .name("greet")
}

#[test]
fn s2_1_rule_1_other_methods_than_post_are_legacy() {
    for method in [Method::GET, Method::DELETE] {
        let bare = || case(None).http(method.clone());
        bare().is(Era::Legacy, Version::ASSUMED, "§2.1.1 no header");
        bare().version("2025-11-25").is(Era::Legacy, Version::V2025_11_25, "§2.1.1 legacy header");
        bare().session(Version::V2025_06_18).is(Era::Legacy, Version::V2025_06_18, "§2.1.1 session");
        bare().version(MODERN).not_allowed("POST", "§2.2 Methods: modern header");
        bare().version("2027-01-01").not_allowed("POST", "§2.2 Methods: later revision");
        bare().served(Versions::MODERN).not_allowed("POST", "§2.1.1 modern-only route");
        bare().version("garbage").refused(INVALID_REQUEST, "§2.3 invalid version header");
        bare()
            .version("2025-11-25")
            .version("2025-11-25")
            .refused(INVALID_REQUEST, "§2.3 doubled version header");
    }
    case(None).http(Method::PUT).not_allowed("GET, POST, DELETE", "§2.2 Methods");
    case(None).http(Method::PUT).served(Versions::MODERN).not_allowed("POST", "§2.2 Methods");
    case(None).http(Method::POST).refused(INVALID_REQUEST, "§2.2 Body: nothing to classify");
}

#[test]
fn s2_1_rule_2_batches_exist_in_2025_03_26_only() {
    let batch = || case(Some(Body::Batch));
    batch().is(Era::Legacy, Version::V2025_03_26, "no header means 2025-03-26");
    batch().version("2025-03-26").is(Era::Legacy, Version::V2025_03_26, "named");
    batch().session(Version::V2025_03_26).is(Era::Legacy, Version::V2025_03_26, "negotiated");
    batch().version("2025-06-18").refused(INVALID_REQUEST, "removed in 2025-06-18");
    batch().session(Version::V2025_11_25).refused(INVALID_REQUEST, "negotiated 2025-11-25");
    batch().version(MODERN).refused(INVALID_REQUEST, "modern batch");
    batch().served(Versions::MODERN).refused(INVALID_REQUEST, "modern-only route");
}

#[test]
fn s2_1_rule_2_responses_are_legacy() {
    let response = || post(Message::new(Kind::Response, ""));
    response().session(Version::V2025_11_25).is(Era::Legacy, Version::V2025_11_25, "answers an elicitation");
    response().is(Era::Legacy, Version::ASSUMED, "without a session");
    response().version(MODERN).refused(INVALID_REQUEST, "§2.2 Body: the client never sends responses");
    response().served(Versions::MODERN).refused(INVALID_REQUEST, "§2.2 Body on a modern-only route");
}

#[test]
fn s2_1_rule_3_initialize_is_legacy_unless_its_meta_is_modern() {
    let init = || post(request("initialize"));
    init().is(Era::Legacy, Version::ASSUMED, "no header: 32 of 35 clients");
    init().version("2025-11-25").is(Era::Legacy, Version::V2025_11_25, "legacy header");
    let refusal = init().version(MODERN).refused(HEADER_MISMATCH, "modern header");
    assert_eq!(refusal.rule, Rule::Handshake);
    post(meta(request("initialize"), "1900-01-01")).is(
        Era::Legacy,
        Version::ASSUMED,
        "the claim is not modern",
    );
    // The server answers 404 with -32601, as it does for every method it does not have.
    post(meta(request("initialize"), MODERN)).version(MODERN).method("initialize").is(
        Era::Modern,
        Version::V2026_07_28,
        "modern _meta",
    );
}

#[test]
fn s2_1_rule_4_meta_makes_a_request_modern() {
    call().is(Era::Modern, Version::V2026_07_28, "as the SDKs send it");
    call().session(Version::V2025_11_25).is(
        Era::Modern,
        Version::V2026_07_28,
        "§2.2: session ids are ignored",
    );
    post(meta(request("tools/list"), MODERN)).version(MODERN).method("tools/list").is(
        Era::Modern,
        Version::V2026_07_28,
        "a method without a name needs no Mcp-Name (§5.14)",
    );
}

#[test]
fn s2_1_rule_4_the_version_header_must_equal_meta() {
    let list = || post(meta(request("tools/list"), MODERN)).method("tools/list");
    list().refused(HEADER_MISMATCH, "missing");
    list().version("2025-11-25").refused(HEADER_MISMATCH, "other");
    list().version(MODERN).version(MODERN).refused(HEADER_MISMATCH, "twice");
    list().header("mcp-protocol-version", b"2026\xff07-28").refused(HEADER_MISMATCH, "unreadable");
    list().version(" 2026-07-28 ").is(Era::Modern, Version::V2026_07_28, "whitespace is not part of a value");
    post(meta(request("server/discover"), "v999.0.0"))
        .version(MODERN)
        .method("server/discover")
        .refused(HEADER_MISMATCH, "a mismatch wins over an unsupported revision");
}

#[test]
fn s2_2_required_headers_mcp_method_must_equal_the_method() {
    let list = || post(meta(request("tools/list"), MODERN)).version(MODERN);
    list().refused(HEADER_MISMATCH, "missing");
    list().method("prompts/list").refused(HEADER_MISMATCH, "other");
    list().method("TOOLS/LIST").refused(HEADER_MISMATCH, "values are case-sensitive");
    list().method("tools/list").method("tools/list").refused(HEADER_MISMATCH, "duplicates, even equal ones");
    list().method("tools/list, tools/list").refused(HEADER_MISMATCH, "duplicates joined on the way");
    list().header("mcp-method", b"tools/list\xff").refused(HEADER_MISMATCH, "unreadable");
    list().method("\ttools/list ").is(Era::Modern, Version::V2026_07_28, "whitespace");
}

#[test]
fn s2_2_required_headers_mcp_name_must_equal_the_name() {
    let methods =
        ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/update", "tasks/cancel"];
    for method in methods {
        let bare = || post(named(meta(request(method), MODERN), "a b")).version(MODERN).method(method);
        bare().name("a b").is(Era::Modern, Version::V2026_07_28, method);
        bare().name("  a b ").is(Era::Modern, Version::V2026_07_28, method);
        bare().name("=?base64?YSBi?=").is(Era::Modern, Version::V2026_07_28, method);
        bare().refused(HEADER_MISMATCH, method);
        bare().name("a").refused(HEADER_MISMATCH, method);
        bare().name("A B").refused(HEADER_MISMATCH, method);
        bare().name("a b").name("a b").refused(HEADER_MISMATCH, method);
        bare().name("=?base64?YSBi").refused(HEADER_MISMATCH, method);
        bare().name("=?base64?!?=").refused(HEADER_MISMATCH, method);
        bare().header("mcp-name", b"a\xe9b").refused(HEADER_MISMATCH, method);
    }
    post(meta(request("tools/call"), MODERN)).version(MODERN).method("tools/call").is(
        Era::Modern,
        Version::V2026_07_28,
        "§2.2: a body without a name is the server's -32602",
    );
    let only_name = |method| {
        let mut message = meta(request(method), MODERN);
        message.name = Some("x");
        post(message).version(MODERN).method(method)
    };
    only_name("resources/read").is(Era::Modern, Version::V2026_07_28, "params.name is not the uri");
    only_name("tools/list").name("y").is(Era::Modern, Version::V2026_07_28, "§5.14: the method has no name");
}

#[test]
fn s2_1_rule_5_modern_header_needs_meta() {
    let refusal = post(request("tools/list")).version(MODERN).refused(INVALID_PARAMS, "no _meta");
    assert!(refusal.message.contains("protocolVersion, io.modelcontextprotocol/clientCapabilities"));
    let mut half = request("tools/list");
    half.client_capabilities = true;
    let refusal = post(half).version(MODERN).refused(INVALID_PARAMS, "no protocolVersion");
    assert!(!refusal.message.contains("clientCapabilities"), "{refusal}");
    let mut half = meta(request("tools/list"), MODERN);
    half.client_capabilities = false;
    let refusal =
        post(half).version(MODERN).method("tools/list").refused(INVALID_PARAMS, "no clientCapabilities");
    assert!(!refusal.message.contains("protocolVersion"), "{refusal}");
    post(request("server/discover")).refused(INVALID_PARAMS, "the method exists in the modern era only");
    post(request("server/discover")).served(Versions::LEGACY).is(
        Era::Legacy,
        Version::ASSUMED,
        "legacy route",
    );
}

#[test]
fn s2_1_rule_6_everything_else_is_legacy() {
    let list = || post(request("tools/list"));
    list().is(Era::Legacy, Version::V2025_03_26, "no header");
    list().version("2025-06-18").is(Era::Legacy, Version::V2025_06_18, "header");
    list().version("2025-06-18").session(Version::V2025_11_25).is(
        Era::Legacy,
        Version::V2025_11_25,
        "session first",
    );
    list().version("2024-11-05").is(Era::Legacy, Version::V2024_11_05, "oldest");
    post(meta(request("tools/list"), "2025-11-25")).version("2025-11-25").is(
        Era::Legacy,
        Version::V2025_11_25,
        "_meta names a legacy revision",
    );
    post(meta(request("tools/list"), "2025-11-25"))
        .version("2025-06-18")
        .refused(HEADER_MISMATCH, "_meta and header name different legacy revisions");
}

#[test]
fn s0_6_legacy_mirror_headers_are_not_looked_at() {
    let list = post(request("tools/list")).version("2025-11-25").method("tools/call").name("x").name("y");
    list.is(Era::Legacy, Version::V2025_11_25, "spoofed, doubled and ignored");
}

#[test]
fn s2_3_an_invalid_legacy_version_header_is_400() {
    for kind in [Kind::Request, Kind::Notification, Kind::Response] {
        let send = || post(Message::new(kind, "x"));
        send().version("1999-01-01").refused(INVALID_REQUEST, "unknown");
        send().version("").refused(INVALID_REQUEST, "empty");
        send().version("2025-11-25").version("2025-11-25").refused(INVALID_REQUEST, "twice");
        send().header("mcp-protocol-version", b"\xff").refused(INVALID_REQUEST, "unreadable");
    }
    let refusal = post(request("ping")).version("nope").refused(INVALID_REQUEST, "unknown");
    assert!(refusal.message.contains("nope") && refusal.message.contains("2025-11-25"), "{refusal}");
}

#[test]
fn s2_2_version_error_lists_what_is_served_and_echoes_what_was_asked() {
    let unknown = || post(meta(request("server/discover"), "v999.0.0")).version("v999.0.0");
    unknown().refused(HEADER_MISMATCH, "a name that sorts after 2026-07-28 owes Mcp-Method");
    let refusal = unknown().method("server/discover").refused(UNSUPPORTED_VERSION, "unknown");
    assert_eq!(
        refusal.data,
        Some(json!({
            "supported": ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"],
            "requested": "v999.0.0",
        }))
    );
    post(meta(request("tools/list"), "1900-01-01"))
        .version("1900-01-01")
        .refused(UNSUPPORTED_VERSION, "an old name owes no Mcp-Method");
    let refusal =
        post(request("tools/list")).version("2027-03-01").refused(UNSUPPORTED_VERSION, "future header");
    assert_eq!(refusal.data.unwrap()["requested"], "2027-03-01");
}

#[test]
fn s2_2_a_modern_client_on_a_legacy_route_learns_what_the_route_speaks() {
    let legacy: Versions = [Version::V2025_06_18, Version::V2025_11_25].into_iter().collect();
    let refusal = call().served(legacy).refused(UNSUPPORTED_VERSION, "request");
    assert_eq!(refusal.data, Some(json!({"supported": ["2025-11-25", "2025-06-18"], "requested": MODERN})));
    post(request("tools/list"))
        .version(MODERN)
        .served(legacy)
        .refused(UNSUPPORTED_VERSION, "header without _meta");
    post(Message::new(Kind::Notification, "x"))
        .version(MODERN)
        .served(legacy)
        .refused(UNSUPPORTED_VERSION, "note");
}

#[test]
fn s2_1_a_legacy_client_on_a_modern_route_learns_what_the_route_speaks() {
    let mut init = request("initialize");
    init.init_version = Some("2025-11-25");
    let refusal = post(init).served(Versions::MODERN).refused(UNSUPPORTED_VERSION, "initialize");
    assert_eq!(refusal.data, Some(json!({"supported": [MODERN], "requested": "2025-11-25"})));
    let refusal =
        post(request("tools/list")).served(Versions::MODERN).refused(UNSUPPORTED_VERSION, "no header");
    assert_eq!(refusal.data, Some(json!({"supported": [MODERN]})), "nothing is invented");
}

#[test]
fn s2_2_body_notifications_must_agree_with_the_headers_they_have() {
    let note = |version: Option<&'static str>| {
        let mut message = Message::new(Kind::Notification, "notifications/x");
        message.meta_version = version;
        post(message)
    };
    let modern = (Era::Modern, Version::V2026_07_28);
    note(None).version(MODERN).is(modern.0, modern.1, "the header alone makes it modern");
    note(Some(MODERN)).is(modern.0, modern.1, "no headers are defined for notifications");
    note(Some(MODERN)).version(MODERN).method("notifications/x").is(modern.0, modern.1, "all of them");
    note(Some(MODERN)).version("2025-11-25").refused(HEADER_MISMATCH, "version");
    note(None).version(MODERN).method("notifications/y").refused(HEADER_MISMATCH, "method");
    note(None).version(MODERN).method("x").method("x").refused(HEADER_MISMATCH, "doubled method");
    note(Some("2027-01-01")).refused(UNSUPPORTED_VERSION, "later revision");
    note(None).version("2027-01-01").refused(UNSUPPORTED_VERSION, "later revision in the header");
    note(None).session(Version::V2025_11_25).is(Era::Legacy, Version::V2025_11_25, "§2.1.6");
    note(Some("2025-11-25")).is(Era::Legacy, Version::V2025_11_25, "names a legacy revision");
}

#[test]
fn what_the_client_sent_is_echoed_cut() {
    let long = "é".repeat(4000);
    let encoded = header::encode(&long).into_owned();
    let refusal = post(named(meta(request("tools/call"), MODERN), "greet"))
        .version(MODERN)
        .method("tools/call")
        .name(&encoded)
        .refused(HEADER_MISMATCH, "a long wrong name");
    assert!(refusal.message.len() < 512, "{}", refusal.message.len());
}

fn any_text() -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::of(prop_oneof![
        Just("2024-11-05"),
        Just("2025-03-26"),
        Just("2025-11-25"),
        Just(MODERN),
        Just("2027-01-01"),
        Just("v9"),
        Just("tools/call"),
        Just("initialize"),
        Just("greet"),
        Just(""),
    ])
}

proptest! {
    /// Whoever is behind us may read the header or the body: for every accepted modern request they say the same.
    #[test]
    fn an_accepted_modern_request_cannot_be_read_in_two_ways(
        kind in prop_oneof![Just(Kind::Request), Just(Kind::Notification)],
        method in any_text(), name in any_text(), claim in any_text(), capabilities in any::<bool>(),
        version_headers in proptest::collection::vec(any_text(), 0..3),
        method_headers in proptest::collection::vec(any_text(), 0..3),
        name_headers in proptest::collection::vec(any_text(), 0..3),
        served in 0u8..32,
    ) {
        let mut message = named(Message::new(kind, method.unwrap_or("tools/list")), name.unwrap_or("greet"));
        message.meta_version = claim;
        message.client_capabilities = capabilities;
        let mut case = post(message);
        case.served = Version::ALL.into_iter().filter(|v| served & (1 << v.code()) != 0).collect();
        for (header, values) in
            [("mcp-protocol-version", &version_headers), ("mcp-method", &method_headers), ("mcp-name", &name_headers)]
        {
            for value in values.iter().flatten() {
                case = case.header(header, value.as_bytes());
            }
        }
        let texts = |values: &[Option<&'static str>]| values.iter().flatten().copied().collect::<Vec<_>>();
        match case.run() {
            Ok(Classified { era, version }) => {
                prop_assert!(case.served.speaks(era));
                if era == Era::Modern {
                    prop_assert!(case.served.contains(version));
                    for value in texts(&version_headers) {
                        prop_assert_eq!(value, version.as_str());
                    }
                    for value in texts(&method_headers) {
                        prop_assert_eq!(value, message.method);
                    }
                }
                if era == Era::Modern && kind == Kind::Request {
                    prop_assert_eq!(texts(&version_headers), [version.as_str()]);
                    prop_assert_eq!(texts(&method_headers), [message.method]);
                    prop_assert_eq!(claim, Some(version.as_str()));
                    prop_assert!(capabilities);
                    if let Some((_, Some(expected))) = message.named() {
                        prop_assert_eq!(texts(&name_headers), [expected]);
                    }
                }
            }
            Err(refusal) => prop_assert_eq!(refusal.status, StatusCode::BAD_REQUEST),
        }
    }
}
