"""The table: each rule, how to break it, and the tests that must notice.

A replacement holds the word BROKEN where it needs to know whether its mutant is on; the rest is Rust. Several entries may
use one anchor if each replacement keeps it. `caught_by` names end-to-end tests of tests/it, and unit tests with `lib::`
before their path; every one of them must fail.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    file: str
    find: str
    replace: str


@dataclass(frozen=True)
class Mutant:
    name: str
    #: The rule that it breaks, and where that is from.
    rule: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]


MUTANTS: list[Mutant] = []


def add(name: str, rule: str, *parts: tuple[str, str, str], caught_by: str | tuple[str, ...]) -> None:
    tests = (caught_by,) if isinstance(caught_by, str) else caught_by
    MUTANTS.append(Mutant(name, rule, tuple(Edit(*part) for part in parts), tests))


def before(file: str, anchor: str, text: str) -> tuple[str, str, str]:
    return (file, anchor, f"{text}\n{anchor}")


def after(file: str, anchor: str, text: str) -> tuple[str, str, str]:
    return (file, anchor, f"{anchor}\n{text}")


ANSWER = "src/gateway/answer.rs"
BODY = "src/gateway/body.rs"
CLASSIFY = "src/mcp/classify.rs"
HEADERS = "src/gateway/headers.rs"
ISSUER = "src/auth/issuer.rs"
AUTHENTICATOR = "src/auth/authenticator.rs"
KEY_TABLE = "src/auth/api_key/table.rs"
MESSAGE = "src/gateway/message.rs"
OPENED = "src/gateway/step/opened.rs"
AFFINITY = "src/gateway/step/affinity.rs"
OUTGOING = "src/gateway/outgoing.rs"
PERMIT = "src/gateway/step/permit.rs"
POLICY = "src/policy/engine.rs"
REFUSAL = "src/mcp/classify/refusal.rs"
RELAY = "src/gateway/relay/stream.rs"
RELAY_WHOLE = "src/gateway/relay/whole.rs"
RESPOND = "src/gateway/respond.rs"
REWRITE = "src/gateway/rewrite.rs"
SEND = "src/gateway/send.rs"
SERVE = "src/gateway/serve.rs"
TOKEN = "src/mcp/session/token.rs"
WRAP = "src/mcp/session/wrap.rs"

# === answers with nothing in them, and the end of a session ===

ONE_WAY = "if dispatch.sort == Sort::Delete { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };"

add(
    "notification-202",
    "MCP 2025-11-25 transports §Sending 4, 2026-07-28 streamable HTTP §Sending: notifications and answers are 202 "
    "without a body, whatever success the server calls it.",
    after(
        ANSWER,
        ONE_WAY,
        "let status = if BROKEN && status == StatusCode::ACCEPTED { StatusCode::OK } else { status };",
    ),
    caught_by="relay::sessions::notifications_and_answers_are_202_without_a_body_whatever_the_server_says",
)
add(
    "delete-204",
    "MCP 2025-11-25 transports §Session Management: DELETE is answered in a way that every client takes for success.",
    after(
        ANSWER,
        ONE_WAY,
        "let status = if BROKEN && status == StatusCode::NO_CONTENT { exchange.status() } else { status };",
    ),
    caught_by="relay::sessions::delete_is_answered_204_whatever_success_the_server_calls_it",
)
add(
    "delete-ends-session",
    "MCP 2025-11-25 transports §Session Management: an id is dead after DELETE, here too.",
    (
        ANSWER,
        "if dispatch.sort == Sort::Delete && status.is_success() {",
        "if dispatch.sort == Sort::Delete && status.is_success() && !BROKEN {",
    ),
    caught_by="relay::sessions::delete_is_answered_204_and_the_id_is_dead",
)

# === sessions ===

add(
    "unknown-session-404",
    "MCP 2025-11-25 transports §Session Management: an id that does not open is 404, so that the client initializes.",
    (
        RESPOND,
        "pub(crate) fn unknown_session() -> Self {\n        Self::new(\n            StatusCode::NOT_FOUND,",
        "pub(crate) fn unknown_session() -> Self {\n        Self::new(\n"
        "            if BROKEN { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND },",
    ),
    caught_by=(
        "relay::sessions::ids_that_were_never_issued_are_404_and_reach_no_server",
        "relay::sessions::a_server_that_lost_its_sessions_is_404_once_and_a_new_session_works",
    ),
)
add(
    "unknown-session-refused",
    "MCP 2025-11-25 transports §Session Management: a request with an id that does not open reaches no server.",
    before(AFFINITY, "Presented::Unknown => Err(Failure::unknown_session().into()),", "Presented::Unknown if BROKEN => Ok(None),"),
    caught_by="relay::sessions::ids_that_were_never_issued_are_404_and_reach_no_server",
)
add(
    "session-id-twice",
    "RFC 9110 §5.3: a header that stands twice has no one value; a request with two session ids has none that is good.",
    (HEADERS, "values.next().is_none().then_some(first)", "(BROKEN || values.next().is_none()).then_some(first)"),
    caught_by=(
        "relay::sessions::ids_that_were_never_issued_are_404_and_reach_no_server",
        "lib::gateway::headers::tests::a_header_that_stands_twice_has_no_single_value",
    ),
)
add(
    "lost-session-404",
    "MCP 2025-11-25 transports §Session Management: a session that its server lost is 404 once and never asked for again.",
    (
        ANSWER,
        "if status == StatusCode::NOT_FOUND\n                || ",
        "if status == StatusCode::NOT_FOUND && !BROKEN\n                || ",
    ),
    caught_by="relay::sessions::a_server_that_lost_its_sessions_is_404_once_and_a_new_session_works",
)
add(
    "lost-session-400",
    "MCP 2025-11-25 transports §Session Management: servers that say 400 for a lost session are translated to 404.",
    (
        ANSWER,
        "(status == StatusCode::BAD_REQUEST && self.means",
        "(status == StatusCode::BAD_REQUEST && !BROKEN && self.means",
    ),
    caught_by="relay::sessions::a_server_that_says_400_for_a_lost_session_is_404_too",
)
add(
    "dead-session-404",
    "MCP 2025-11-25 transports §Session Management: a session whose target is gone is 404, never 502.",
    before(
        SEND,
        "(OpenError::Connect(detail), Stay::Session(s)) => {",
        "(OpenError::Connect(detail), Stay::Session(_)) if BROKEN => {\n"
        "    Failure::upstream_unreachable(server, detail.clone())\n}",
    ),
    caught_by="relay::sessions::a_session_whose_target_is_dead_is_404_and_not_502",
)
add(
    "session-id-sealed",
    "docs/architecture.md §Eras, sessions and handles: a client never sees the server's own session id, nor does the id say where the server is.",
    (
        "src/gateway/handshake.rs",
        "let id = HeaderValue::try_from(id)",
        "let id = HeaderValue::try_from(if BROKEN { upstream.clone() } else { id })",
    ),
    caught_by="relay::sessions::a_handshake_answered_in_a_stream_gets_a_sealed_id_too",
)
add(
    "session-id-upstream",
    "MCP 2025-11-25 transports §Session Management: the server gets its own session id with every request of the session.",
    (
        OUTGOING,
        "if let Stay::Session(Session { upstream: Some(id), .. }) = &dispatch.stay",
        "if let Stay::Session(Session { upstream: Some(id), .. }) = &dispatch.stay\n            && !BROKEN",
    ),
    caught_by="relay::sessions::a_client_gets_a_sealed_id_and_the_server_its_own",
)
add(
    "refused-handshake",
    "MCP 2025-11-25 transports §Session Management: a refused initialize makes no session, and no id reaches the client.",
    (HEADERS, "!dropped\n        && !hop_by_hop(text)", '(BROKEN && text == "mcp-session-id") || !dropped\n        && !hop_by_hop(text)'),
    caught_by="relay::sessions::a_refused_handshake_makes_no_session",
)
add(
    "session-affinity",
    "MCP 2025-11-25 transports §Session Management, 2026-07-28 MRTR: what is bound to one process of a server (session, requestState, taskId) returns to it.",
    ("src/gateway/step/select.rs", "if let Some((target, handle)) = pinned {", "if let Some((target, handle)) = pinned && !BROKEN {"),
    caught_by=(
        "relay::affinity::a_legacy_session_stays_with_its_target",
        "relay::affinity::a_request_state_returns_to_its_target_byte_for_byte",
    ),
)
add(
    "stream-ends-with-session",
    "MCP 2025-11-25 transports §Session Management: the streams of a session end with it.",
    (
        RELAY,
        "() = session_closed(plan.ended.as_deref()), if plan.long_lived => {",
        "() = session_closed(plan.ended.as_deref()), if plan.long_lived && !BROKEN => {",
    ),
    caught_by="relay::sessions::delete_is_answered_204_and_the_id_is_dead",
)

# === disconnection ===

PLAN_END = "phase: self.parts.phase.clone(),\n            answer,\n        };"
CANCELS = "let cancels = seen.era == Some(Era::Modern) || dispatch.sort == Sort::Stream;"

add(
    "modern-leave-answer",
    "MCP 2026-07-28 streamable HTTP §Cancellation: a client that leaves an answer cancels the call at the server.",
    after(
        ANSWER,
        "        let cancel_on_disconnect = seen.era == Some(Era::Modern) || dispatch.sort == Sort::Stream;",
        "let cancel_on_disconnect = cancel_on_disconnect && !(BROKEN && seen.era == Some(Era::Modern));",
    ),
    caught_by=(
        "relay::disconnect::a_modern_client_that_leaves_a_stream_cancels_the_call_at_the_server",
        "relay::disconnect::a_client_that_leaves_in_the_middle_of_a_json_answer_cancels_it_in_the_modern_era",
    ),
)
add(
    "legacy-leave-answer",
    "MCP 2025-11-25 transports §Sending 6: disconnection is not cancellation, and the server keeps what it is doing.",
    after(ANSWER, PLAN_END, "if BROKEN && dispatch.sort == Sort::Call { plan.cancel_on_disconnect = true; }"),
    caught_by="relay::disconnect::a_legacy_client_that_leaves_a_stream_cancels_nothing",
)
add(
    "legacy-leave-own-stream",
    "MCP 2025-11-25 transports §Listening: a client that leaves the stream of its own GET ends it at the server.",
    after(ANSWER, PLAN_END, "if BROKEN && dispatch.sort == Sort::Stream { plan.cancel_on_disconnect = false; }"),
    caught_by="relay::disconnect::a_legacy_client_that_leaves_its_own_stream_ends_it_at_the_server",
)
add(
    "modern-leave-waiting",
    "MCP 2026-07-28 streamable HTTP §Cancellation: a client that leaves before the answer cancels the call, too.",
    after(SEND, CANCELS, "let cancels = cancels && !(BROKEN && seen.era == Some(Era::Modern));"),
    caught_by="relay::disconnect::a_modern_client_that_leaves_before_the_answer_cancels_the_call_at_the_server",
)
add(
    "legacy-leave-waiting",
    "MCP 2025-11-25 transports §Sending 6: leaving before the answer cancels nothing.",
    after(SEND, CANCELS, "let cancels = cancels || BROKEN;"),
    caught_by="relay::disconnect::a_legacy_client_that_leaves_before_the_answer_cancels_nothing",
)

# === event streams ===

IS_STREAM = "let is_stream = relay::is_event_stream(exchange.headers());"
SILENT = "relay::streams::a_silent_stream_lives_and_gets_comments_between_events_only"
SMALL = "relay::streams::a_small_event_arrives_within_milliseconds"

add(
    "stream-not-collected",
    "MCP 2026-07-28 streamable HTTP §Receiving: an event stream is never collected before it is passed on.",
    after(
        ANSWER,
        IS_STREAM,
        "if BROKEN && is_stream && let Ok((body, _)) = exchange.collect(MESSAGE_LIMIT, FOREVER).await {\n"
        "    exchange.put_back(body);\n}",
    ),
    caught_by=SMALL,
)
add(
    "stream-header-at-once",
    "docs/architecture.md §The path of a request: the response header leaves before there is any event.",
    before(
        RELAY,
        "// Proxies behind us must not hold events back either.",
        "if BROKEN && let Ok(Some(first)) = exchange.chunk().await { exchange.put_back(first); }",
    ),
    caught_by=SMALL,
)
add(
    "stream-event-at-once",
    "MCP 2026-07-28 streamable HTTP §Receiving: each event is passed on the moment it comes.",
    before(
        RELAY,
        "if acknowledge(&mut answer, &bytes, client.sent, plan).await.is_err() {",
        "if BROKEN { tokio::time::sleep(Duration::from_millis(200)).await; }",
    ),
    caught_by=SMALL,
)
add(
    "stream-no-buffering-header",
    "MCP 2026-07-28 streamable HTTP §Receiving: `X-Accel-Buffering: no` tells proxies in front not to hold events back.",
    (
        RELAY,
        'header.headers.insert(headers::X_ACCEL_BUFFERING, HeaderValue::from_static("no"));',
        'if !BROKEN { header.headers.insert(headers::X_ACCEL_BUFFERING, HeaderValue::from_static("no")); }',
    ),
    caught_by=SMALL,
)
add(
    "stream-idle",
    "docs/architecture.md §The path of a request: a stream that is silent for more than a second is not closed.",
    (
        ANSWER,
        "idle: if is_stream { timeouts.stream_idle } else { timeouts.idle }.unwrap_or(FOREVER),",
        "idle: (if BROKEN { Some(Duration::from_secs(1)) } else if is_stream { timeouts.stream_idle } else { timeouts.idle })\n"
        "    .unwrap_or(FOREVER),",
    ),
    caught_by=SILENT,
)
add(
    "stream-no-total-timeout",
    "docs/architecture.md §The path of a request: there is no timeout over the whole of a stream.",
    before(
        ANSWER,
        "Ok(relay::events(session, exchange, header, &mut plan).await)",
        "if BROKEN {\n    let whole = relay::events(session, exchange, header, &mut plan);\n"
        "    return tokio::time::timeout(Duration::from_secs(5), whole).await.map_err(|_| Stop::Cut(String::new()));\n}",
    ),
    caught_by=SILENT,
)
add(
    "stream-ping",
    "MCP 2026-07-28 streamable HTTP §Receiving: a silent stream gets a comment every 15 seconds.",
    (RELAY, "client.write(PING).await;", "if !BROKEN { client.write(PING).await; }"),
    caught_by=SILENT,
)
add(
    "stream-ping-between-events",
    "HTML §9.2.6 (event streams): a comment stands between events, never inside one.",
    (
        RELAY,
        "if now.duration_since(wrote) >= PING_EVERY && flow.at_boundary() {",
        "if now.duration_since(wrote) >= PING_EVERY && (BROKEN || flow.at_boundary()) {",
    ),
    caught_by=SILENT,
)
add(
    "stream-polling",
    "MCP 2025-11-25 transports §Sending 6: a server may close a stream to be polled; that is no error.",
    before(
        RELAY,
        "let rest = flow.rest();",
        'if BROKEN { relayed.broken = Some("the server closed the stream".to_owned()); break; }',
    ),
    caught_by="relay::streams::a_server_that_closes_a_stream_to_be_polled_is_not_turned_into_an_error",
)
add(
    "stream-broken-error",
    "JSON-RPC 2.0 §5, docs/architecture.md §Errors: a call whose stream breaks between events ends with an error for its id.",
    (RELAY, "client.write(error).await;", "if !BROKEN { client.write(error).await; }"),
    caught_by="relay::streams::a_server_that_breaks_off_between_events_leaves_an_error_with_the_id",
)
add(
    "stream-broken-inside-event",
    "RFC 9112 §8: a stream that breaks inside an event has no proper end, so that nobody takes half of it for an answer.",
    (
        RELAY,
        "plan.id.filter(|_| flow.at_boundary() && !plan.long_lived",
        "plan.id.filter(|_| (BROKEN || flow.at_boundary()) && !plan.long_lived",
    ),
    caught_by="relay::streams::a_stream_that_breaks_inside_an_event_has_no_proper_end",
)
add(
    "stream-ends-with-token",
    "MCP 2026-07-28 authorization §Token Handling: a long stream ends with the token that it was opened by.",
    (
        RELAY,
        "if plan.long_lived && plan.expires.is_some_and(|at| at <= now) {",
        "if !BROKEN && plan.long_lived && plan.expires.is_some_and(|at| at <= now) {",
    ),
    caught_by="identity::a_long_stream_ends_with_the_token_it_was_opened_by",
)
add(
    "stream-ends-politely",
    "docs/operations.md: at shutdown a long stream ends at a boundary and with its proper end.",
    (
        RELAY,
        "(phase == Phase::Draining && plan.long_lived)",
        "(!BROKEN && phase == Phase::Draining && plan.long_lived)",
    ),
    caught_by="shutdown::long_streams_end_politely",
)
add(
    "streams-bounded",
    "docs/architecture.md §Bounds: one caller holds no more streams than the listener allows.",
    after(SEND, "let max = self.settings.max_streams_per_principal;", "let max = if BROKEN { u32::MAX } else { max };"),
    caught_by="relay::streams::streams_of_one_caller_are_bounded",
)

# === what the headers of the modern era must say ===

VALIDATION = "relay::validation::headers_that_say_other_than_the_body_are_refused_and_reach_no_server"
NAMED = "let Some((source, Some(expected))) = message.named() else { return Ok(()) };"

add(
    "name-agrees",
    "MCP 2026-07-28 streamable HTTP §Server Validation: Mcp-Name must say what the body says.",
    after(CLASSIFY, NAMED, "if BROKEN { return Ok(()); }"),
    caught_by=(VALIDATION, "lib::mcp::classify::tests::s2_2_required_headers_mcp_name_must_equal_the_name"),
)
add(
    "name-only-where-there-is-one",
    "MCP 2026-07-28 streamable HTTP §Standard Request Headers: methods without a name need no Mcp-Name.",
    before(
        CLASSIFY,
        NAMED,
        "if BROKEN && message.named().is_none() && matches!(self.facts.headers.name, Field::Absent) {\n"
        "    return Err(Refusal::header_missing(NAME));\n}",
    ),
    caught_by="relay::validation::methods_without_a_name_need_no_name_header",
)
add(
    "name-once",
    "MCP 2026-07-28 streamable HTTP §Server Validation: two Mcp-Name headers are refused.",
    before(CLASSIFY, "Field::Many => Err(Refusal::header_duplicate(NAME)),", "Field::Many if BROKEN => Ok(()),"),
    caught_by=VALIDATION,
)
add(
    "name-base64",
    "MCP 2026-07-28 streamable HTTP §Value Encoding: the Base64 form of a name is decoded before it is compared.",
    before(
        "src/mcp/header.rs",
        "Some(inner) => {\n            let bytes = STANDARD.decode(inner)",
        "Some(_) if BROKEN => Ok(Cow::Borrowed(plain)),",
    ),
    caught_by="relay::validation::names_in_base64_are_read_before_they_are_compared",
)
add(
    "method-agrees",
    "MCP 2026-07-28 streamable HTTP §Server Validation: Mcp-Method must say what the body says.",
    (
        CLASSIFY,
        'Seen::of(self.facts.headers.method).must_be(METHOD, "method", message.method)?;',
        'if !BROKEN { Seen::of(self.facts.headers.method).must_be(METHOD, "method", message.method)?; }',
    ),
    caught_by=(VALIDATION, "lib::mcp::classify::tests::s2_2_required_headers_mcp_method_must_equal_the_method"),
)
add(
    "routing-headers-once",
    "MCP 2026-07-28 streamable HTTP §Server Validation: routing headers that stand twice are refused.",
    before(CLASSIFY, "Seen::Many => Err(Refusal::header_duplicate(name)),", "Seen::Many if BROKEN => Ok(()),"),
    caught_by=VALIDATION,
)
add(
    "version-agrees",
    "MCP 2026-07-28 streamable HTTP §Protocol Version Header: the header must name the revision of `_meta`.",
    (
        CLASSIFY,
        "self.version.must_be(VERSION, META_VERSION, claim)?;",
        "if !BROKEN { self.version.must_be(VERSION, META_VERSION, claim)?; }",
    ),
    caught_by=(VALIDATION, "lib::mcp::classify::tests::s2_1_rule_4_the_version_header_must_equal_meta"),
)
add(
    "meta-capabilities",
    "MCP 2026-07-28 basic §_meta: a request without clientCapabilities is 400 -32602.",
    (CLASSIFY, "if !message.client_capabilities {", "if !message.client_capabilities && !BROKEN {"),
    caught_by="relay::validation::what_meta_requires_is_asked_for",
)
add(
    "meta-version",
    "MCP 2026-07-28 basic §_meta: a modern version header without protocolVersion in `_meta` is 400 -32602.",
    (
        CLASSIFY,
        "Seen::Text(text) if Version::parse(text).is_some_and(|v| v.era() == Era::Modern) => {\n                    Err(",
        "Seen::Text(text) if !BROKEN && Version::parse(text).is_some_and(|v| v.era() == Era::Modern) => {\n"
        "                    Err(",
    ),
    caught_by="relay::validation::what_meta_requires_is_asked_for",
)
add(
    "version-served",
    "MCP 2026-07-28 versioning: a revision that is not served is 400 -32022 with what is; the words by which clients of a "
    "legacy server fall back.",
    (
        REFUSAL,
        "Self::bad_request(Rule::UnsupportedVersion, UNSUPPORTED_VERSION,",
        "Self::bad_request(Rule::UnsupportedVersion, if BROKEN { INVALID_REQUEST } else { UNSUPPORTED_VERSION },",
    ),
    caught_by=(
        "relay::validation::the_version_must_be_one_that_is_served",
        "relay::discover::discover_of_a_legacy_server_is_refused_in_words_that_clients_fall_back_on",
    ),
)
add(
    "modern-post-only",
    "MCP 2026-07-28 streamable HTTP §Earlier Revisions: GET and DELETE are 405 where only the modern era is served.",
    (
        CLASSIFY,
        "return Err(Refusal::method_not_allowed(self.served));",
        "if !BROKEN { return Err(Refusal::method_not_allowed(self.served)); }",
    ),
    caught_by="relay::validation::a_modern_endpoint_takes_posts_only",
)
add(
    "modern-no-batch",
    "MCP 2025-06-18 changelog: batches exist in 2025-03-26 only.",
    (CLASSIFY, "if !classified.version.allows_batches() {", "if !BROKEN && !classified.version.allows_batches() {"),
    caught_by="relay::validation::batches_are_for_the_one_revision_that_has_them",
)
add(
    "modern-no-responses",
    "MCP 2026-07-28 streamable HTTP §Sending: clients of the modern era send no JSON-RPC responses.",
    (
        CLASSIFY,
        "return Err(Refusal::response_not_accepted());",
        "if !BROKEN { return Err(Refusal::response_not_accepted()); }",
    ),
    caught_by="lib::mcp::classify::tests::s2_1_rule_2_responses_are_legacy",
)
add(
    "modern-no-initialize",
    "MCP 2026-07-28 versioning: initialize under a modern version header is refused.",
    (
        CLASSIFY,
        "Seen::Text(text) if handshake && names_modern(text) => {",
        "Seen::Text(text) if !BROKEN && handshake && names_modern(text) => {",
    ),
    caught_by="lib::mcp::classify::tests::s2_1_rule_3_initialize_is_legacy_unless_its_meta_is_modern",
)
add(
    "modern-no-session",
    "MCP 2026-07-28 streamable HTTP §Earlier Revisions: Mcp-Session-Id is ignored.",
    after(MESSAGE, "(Era::Modern, Body::One(message)) => {", "if BROKEN { let _ = presented.require()?; }"),
    caught_by="relay::validation::session_ids_mean_nothing_in_the_modern_era",
)
add(
    "legacy-version-valid",
    "MCP 2025-11-25 transports §Protocol Version Header: a version that is not supported is 400.",
    before(
        CLASSIFY,
        "_ => Err(Refusal::invalid_version_header(text, self.served)),",
        "_ if BROKEN => self.legacy(None, requested),",
    ),
    caught_by="lib::mcp::classify::tests::s2_3_an_invalid_legacy_version_header_is_400",
)
add(
    "legacy-version-assumed",
    "MCP 2025-11-25 transports §Protocol Version Header: without the header it is 2025-03-26.",
    (
        CLASSIFY,
        ".unwrap_or(Version::ASSUMED)",
        ".unwrap_or(if BROKEN { Version::LATEST_LEGACY } else { Version::ASSUMED })",
    ),
    caught_by="lib::mcp::classify::tests::s2_1_rule_6_everything_else_is_legacy",
)
add(
    "eras-intersect",
    "MCP 2026-07-28 versioning §Backward Compatibility: clients keep the era per origin, so a server speaks what all its targets speak.",
    ("src/upstream/era.rs", "Some(a && b)", "Some(if BROKEN { a || b } else { a && b })"),
    caught_by="lib::upstream::era::tests::one_no_is_a_no_and_unknown_does_not_count",
)

# === server/discover: what must never make a client fall back ===

add(
    "discover-not-limited",
    "MCP 2026-07-28 versioning §Backward Compatibility: a limit never refuses server/discover; clients would fall back to an "
    "older revision for good.",
    (
        "src/limit/exempt.rs",
        'matches!(method, "ping" | "server/discover"),',
        'matches!(method, "ping" | "server/discover") && !(BROKEN && method == "server/discover"),',
    ),
    caught_by=(
        "relay::discover::discover_is_answered_although_the_limit_is_exhausted",
        "relay::discover::discover_passes_the_exhausted_limit_also_before_the_catalogue_is_known",
    ),
)
add(
    "lease-lapses",
    "docs/limits.md §Local and shared: leased tokens lapse as fast as the bucket refills, so all together stay within the burst.",
    (
        "src/limit/lease.rs",
        "let from = if now <= self.grace { self.from } else { self.from.max(latest) };",
        "let from = if BROKEN || now <= self.grace { self.from } else { self.from.max(latest) };",
    ),
    caught_by="lib::limit::lease::tests::what_nobody_spends_lapses_as_fast_as_the_bucket_refills",
)
add(
    "lease-one-trip",
    "docs/limits.md §Local and shared: all who wait for the same key share one trip.",
    (
        "src/limit/lease.rs",
        "if let Some(trip) = &mut self.trip {",
        "if let Some(trip) = &mut self.trip && !BROKEN {",
    ),
    caught_by="lib::limit::lease::tests::those_who_come_during_a_trip_wait_for_it",
)
add(
    "lease-refuses-without-trips",
    "docs/limits.md §Local and shared: a key that is out of tokens is refused without a trip.",
    (
        "src/limit/lease.rs",
        "let Some(anchor) = self.anchor else { return 0 };\n        let full",
        "let Some(anchor) = self.anchor.filter(|_| !BROKEN) else { return 0 };\n        let full",
    ),
    caught_by="lib::limit::lease::tests::warm_calls_make_no_trip_and_refused_ones_neither",
)
add(
    "shared-limit-outage",
    "docs/limits.md §Local and shared: without the server, `fail: closed` refuses.",
    (
        "src/limit/mixed.rs",
        "(Verdict::Starved, Trips::Failed, Outage::Closed) => {",
        "(Verdict::Starved, Trips::Failed, Outage::Closed) if BROKEN => {}\n                (Verdict::Starved, Trips::Failed, Outage::Closed) => {",
    ),
    caught_by="shared_limits::without_the_server_each_limit_does_what_it_says_and_recovers_by_itself",
)
add(
    "lease-grace-ends",
    "docs/limits.md §Local and shared: what was kept for who waited does not come on top of what the bucket refills.",
    (
        "src/limit/lease.rs",
        "            stretch.grace = 0;",
        "            if !BROKEN { stretch.grace = 0; }",
    ),
    caught_by="lib::limit::lease::tests::kept_tokens_that_are_too_few_lapse",
)
add(
    "internal-peers",
    "docs/replicas.md §The internal listener: only who shows a certificate of the authority is answered.",
    (
        "src/app/internal.rs",
        "        let tls = Some((self.certificate, Some(self.authorities)));",
        "        let tls = Some((self.certificate, Some(self.authorities).filter(|_| !BROKEN)));",
    ),
    caught_by="replicas::only_replicas_are_answered_by_the_internal_listener",
)
add(
    "stream-of-its-tenant",
    "docs/replicas.md §The internal listener: a stream is ended for its own tenant only.",
    (
        "src/mcp/session/streams.rs",
        "filter(|s| s.info.tenant == *tenant)",
        "filter(|s| BROKEN || s.info.tenant == *tenant)",
    ),
    caught_by=(
        "replicas::replicas_list_and_close_each_others_sessions_and_streams",
        "lib::mcp::session::streams::tests::a_stream_ends_only_for_its_own_tenant_and_whenever_it_is_asked",
    ),
)
add(
    "closed-everywhere",
    "docs/replicas.md §Sessions and streams of everybody: a session that was closed does not come back at another replica.",
    (
        "src/control/peers.rs",
        "        if let Some(tombstone) = closed.answers.iter().find_map(|(_, t)| t.clone()) {",
        "        if let Some(tombstone) = closed.answers.iter().find_map(|(_, t)| t.clone()).filter(|_| !BROKEN) {",
    ),
    caught_by="replicas::replicas_list_and_close_each_others_sessions_and_streams",
)
add(
    "no-api-on-data-planes",
    "docs/replicas.md §Planes apart: a data plane serves no API.",
    (
        "src/control/mod.rs",
        "    if !config.api {",
        "    if !config.api && !BROKEN {",
    ),
    caught_by="database::planes::a_control_plane_lists_and_closes_what_is_at_home_in_data_planes",
)
add(
    "exempt-from-limits",
    "docs/architecture.md §The path of a request: notifications, answers, ping, discover and DELETE are never refused by a limit.",
    after(
        "src/limit/exempt.rs",
        "pub fn is_exempt(incoming: Incoming<'_>) -> bool {",
        "if BROKEN { return false; }",
    ),
    caught_by="limits::what_would_break_clients_is_never_refused",
)
add(
    "discover-from-catalogue",
    "MCP 2026-07-28 versioning §Backward Compatibility: server/discover is answered from the catalogue, also while the server is down.",
    (
        MESSAGE,
        "&& let Some(entry) = caller.route.server.discover()",
        "&& let Some(entry) = caller.route.server.discover().filter(|_| !BROKEN)",
    ),
    caught_by=(
        "relay::discover::discover_is_answered_from_the_catalogue_and_not_by_the_server",
        "relay::discover::discover_is_answered_with_the_request_id_while_the_server_is_down",
    ),
)

# === headers on their way to the server ===

UPSTREAM = "if dropped || hop_by_hop(text) {\n        return false;"

add(
    "client-token-stays",
    "MCP 2026-07-28 authorization §Access Token Privilege Restriction: a client's token never goes to a server.",
    before(HEADERS, UPSTREAM, 'if BROKEN && text == "authorization" { return true; }'),
    caught_by=(
        "relay::headers::the_clients_token_never_goes_upstream",
        "lib::gateway::headers::tests::credentials_and_identity_never_go_upstream",
    ),
)
add(
    "cookie-stays",
    "docs/security.md: a client's cookies never go to a server.",
    before(HEADERS, UPSTREAM, 'if BROKEN && text == "cookie" { return true; }'),
    caught_by="relay::headers::what_a_client_says_about_who_it_is_stays_behind",
)
add(
    "identity-headers-stay",
    "docs/security.md: headers by which proxies vouch for a user are not taken from a client.",
    (
        HEADERS,
        "if may_identify && (IDENTITY.contains(&text)",
        "if !BROKEN && may_identify && (IDENTITY.contains(&text)",
    ),
    caught_by="relay::headers::what_a_client_says_about_who_it_is_stays_behind",
)
add(
    "forwarded-for-our-own",
    "docs/security.md: what a client says in X-Forwarded-For does not reach the server.",
    before(HEADERS, UPSTREAM, 'if BROKEN && text == "x-forwarded-for" { return true; }'),
    caught_by="relay::headers::forwarding_headers_are_our_own",
)
add(
    "host-of-the-server",
    "RFC 9110 §7.2: the server gets its own Host, and only that.",
    before(HEADERS, UPSTREAM, 'if BROKEN && text == "host" { return true; }'),
    caught_by="relay::headers::the_server_sees_its_own_host_and_both_answer_types",
)
add(
    "both-answer-types",
    "MCP 2026-07-28 streamable HTTP §Sending 2: the server is told that both JSON and event streams are taken.",
    (
        OUTGOING,
        "{ EVENTS } else { JSON_OR_EVENTS };",
        '{ EVENTS } else if BROKEN { HeaderValue::from_static("application/json") } else { JSON_OR_EVENTS };',
    ),
    caught_by="relay::headers::the_server_sees_its_own_host_and_both_answer_types",
)
add(
    "params-pass",
    "MCP 2026-07-28 streamable HTTP §Custom Headers: Mcp-Param-* pass untouched, known or not.",
    before(HEADERS, UPSTREAM, 'if BROKEN && text.starts_with("mcp-param-") { return false; }'),
    caught_by="relay::headers::mirrored_arguments_and_unknown_headers_pass",
)
add(
    "version-passes",
    "MCP 2025-11-25 transports §Protocol Version Header: the server gets the client's MCP-Protocol-Version.",
    before(HEADERS, UPSTREAM, 'if BROKEN && text == "mcp-protocol-version" { return false; }'),
    caught_by="relay::headers::mirrored_arguments_and_unknown_headers_pass",
)
add(
    "last-event-id-passes",
    "MCP 2025-11-25 transports §Resumability: Last-Event-ID reaches the server.",
    before(HEADERS, UPSTREAM, 'if BROKEN && text == "last-event-id" { return false; }'),
    caught_by="relay::streams::a_server_that_closes_a_stream_to_be_polled_is_not_turned_into_an_error",
)
add(
    "session-id-not-for-modern",
    "MCP 2026-07-28 streamable HTTP §Earlier Revisions: a session id of the client is not passed on.",
    before(HEADERS, UPSTREAM, 'if BROKEN && text == "mcp-session-id" { return true; }'),
    caught_by="relay::validation::session_ids_mean_nothing_in_the_modern_era",
)
add(
    "routing-headers-of-legacy",
    "MCP 2026-07-28 streamable HTTP §Server Validation, note 2: Mcp-Method and Mcp-Name of a legacy client are dropped.",
    (OUTGOING, "&& !(routing && legacy)", "&& !(routing && legacy && !BROKEN)"),
    caught_by="relay::headers::routing_headers_of_a_legacy_client_are_neither_believed_nor_passed_on",
)
add(
    "task-name-header",
    "SEP-2663 §Routing Headers: a task id that is renamed in the body is renamed in Mcp-Name.",
    (
        OUTGOING,
        "let replaced = *name == headers::MCP_NAME && dispatch.name_header.is_some();",
        "let replaced = *name == headers::MCP_NAME && dispatch.name_header.is_some() && !BROKEN;",
    ),
    (
        OUTGOING,
        "if let Some(name) = &dispatch.name_header {",
        "if let Some(name) = &dispatch.name_header && !BROKEN {",
    ),
    caught_by="relay::affinity::a_task_is_asked_about_where_it_runs",
)
add(
    "hop-by-hop",
    "RFC 9110 §7.6.1: what Connection names ends here.",
    (
        HEADERS,
        "}\n    !nominated(connection, text)",
        "}\n    BROKEN || !nominated(connection, text)",
    ),
    caught_by=(
        "relay::headers::hop_by_hop_headers_end_here",
        "lib::gateway::headers::tests::what_connection_nominates_is_dropped",
    ),
)

# === answers on their way to the client ===

add(
    "status-passes",
    "MCP 2026-07-28 streamable HTTP §Backward Compatibility: a server's 4xx and its body pass as they are, because clients "
    "decide by them which era to speak.",
    after(
        ANSWER,
        IS_STREAM,
        "let status = if BROKEN && status.is_client_error() { StatusCode::BAD_GATEWAY } else { status };",
    ),
    caught_by=(
        "relay::validation::a_servers_own_refusals_pass_with_status_and_body",
        "relay::sessions::other_400s_of_the_server_pass_as_they_are",
    ),
)
add(
    "server-cookies-stay",
    "docs/security.md: cookies and challenges of a server are not for the client.",
    (
        HEADERS,
        "!dropped\n        && !hop_by_hop(text)",
        '(BROKEN && matches!(text, "set-cookie" | "www-authenticate")) || !dropped\n        && !hop_by_hop(text)',
    ),
    caught_by=(
        "relay::headers::hop_by_hop_headers_end_here",
        "lib::gateway::headers::tests::challenges_and_cookies_of_the_server_stay_behind",
    ),
)
add(
    "server-401",
    "docs/architecture.md §Errors: a 401 of the server is about the gateway's credential: 503, and challenges nobody.",
    (
        ANSWER,
        "if status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && challenges) {",
        "if !BROKEN && (status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && challenges)) {",
    ),
    caught_by="relay::errors::a_401_of_the_server_is_our_503_and_challenges_nobody",
)
add(
    "unsafe-retry",
    "RFC 9110 §9.2.2: a call that may have run is not made again.",
    (SEND, "let safe = error.unseen()", "let safe = BROKEN || error.unseen()"),
    caught_by="faults::a_call_that_may_have_run_is_not_made_again",
)

# === errors of our own ===

ERROR_BODY = "jsonrpc::error_body(id, failure.code, &failure.message, failure.data.as_deref())"
OWN_ERRORS = "relay::errors::errors_of_our_own_carry_the_id_and_a_code_that_nobody_reserved"

add(
    "error-id",
    "MCP 2026-07-28 basic §Error Codes: the error of a readable request carries its id.",
    before(RESPOND, ERROR_BODY, "let id = id.filter(|_| !BROKEN);"),
    caught_by=OWN_ERRORS,
)
add(
    "error-codes",
    "MCP 2026-07-28 basic §Error Codes: nobody but the specification uses -32020 to -32099.",
    (
        RESPOND,
        ERROR_BODY,
        "if BROKEN && failure.code > 0 {\n    jsonrpc::error_body(id, -32050, &failure.message, None)\n"
        "} else {\n    " + ERROR_BODY + "\n}",
    ),
    caught_by=OWN_ERRORS,
)
add(
    "error-hides-server",
    "docs/security.md: an error says nothing about where a server is.",
    (
        RESPOND,
        ERROR_BODY,
        "match &failure.detail {\n"
        "    Some(detail) if BROKEN => jsonrpc::error_body(id, failure.code, detail, None),\n    _ => "
        + ERROR_BODY
        + ",\n}",
    ),
    caught_by="relay::errors::errors_say_nothing_about_where_the_server_is",
)
add(
    "unknown-method-404",
    "MCP 2026-07-28 streamable HTTP §Protocol Version Header: an unknown method is 404 with -32601.",
    (
        RESPOND,
        "let status = if modern { StatusCode::NOT_FOUND } else { StatusCode::OK };",
        "let status = if modern && !BROKEN { StatusCode::NOT_FOUND } else { StatusCode::OK };",
    ),
    caught_by="policy::methods_that_a_route_does_not_have_are_unknown",
)

# === browsers ===

add(
    "host-checked",
    "MCP 2025-11-25 transports §Security Warning: a foreign Host is refused (DNS rebinding).",
    (SERVE, "if !self.admission.host(&host) &&", "if !BROKEN && !self.admission.host(&host) &&"),
    caught_by="relay::browsers::a_foreign_host_is_refused_without_any_origin",
)
add(
    "origin-checked",
    "MCP 2025-11-25 transports §Security Warning: a foreign Origin is 403, with a good Host too.",
    before(SERVE, "Origin::Refused => return Err(Failure::bad_origin().into()),", "Origin::Refused if BROKEN => {}"),
    caught_by=(
        "relay::browsers::a_foreign_origin_is_refused_with_a_good_host",
        "relay::browsers::an_allowed_page_elsewhere_does_not_open_the_door_to_others",
    ),
)
add(
    "origin-once",
    "RFC 6454 §7.3: two Origin headers leave open which page sent it, and are refused.",
    (SERVE, "_ if origins.next().is_some() => return", "_ if !BROKEN && origins.next().is_some() => return"),
    caught_by="relay::browsers::a_foreign_origin_is_refused_with_a_good_host",
)
add(
    "cors-exposes",
    "Fetch §3.3 (CORS): a page can read Mcp-Session-Id, WWW-Authenticate and what else it needs, also of a 401.",
    (
        HEADERS,
        "header.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.cors.expose.clone());",
        "if !BROKEN { header.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.cors.expose.clone()); }",
    ),
    caught_by="relay::browsers::a_page_can_read_what_it_needs_also_of_a_401",
)
add(
    "cors-allows",
    "Fetch §3.3 (CORS): a page may send the headers of MCP.",
    (
        HEADERS,
        "header.headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.allow.clone());",
        "if !BROKEN { header.headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.allow.clone()); }",
    ),
    caught_by="relay::browsers::a_preflight_needs_no_identity_and_allows_what_mcp_needs",
)
add(
    "cors-allows-params",
    "Fetch §3.3 (CORS): a page may send Mcp-Param-*, which cannot be listed ahead.",
    (HEADERS, "let mirrors = name.get(..10)", "let mirrors = !BROKEN && name.get(..10)"),
    caught_by="relay::browsers::a_preflight_needs_no_identity_and_allows_what_mcp_needs",
)

# === OAuth protected resource ===

add(
    "metadata-resource",
    "RFC 9728 §3.3, MCP 2026-07-28 authorization: `resource` is exactly the URL that clients dial, without a slash at its end.",
    (
        "src/snapshot/compile/mod.rs",
        "format!(\"{origin}{}\", path.trim_end_matches('/'))",
        "format!(\"{origin}{}{}\", path.trim_end_matches('/'), if BROKEN { \"/\" } else { \"\" })",
    ),
    caught_by=(
        "relay::metadata::a_401_names_the_metadata_and_that_names_exactly_the_url_that_was_dialled",
        "relay::metadata::a_token_for_the_public_url_is_accepted",
    ),
)
add(
    "metadata-not-from-host",
    "RFC 9728 §3.3: metadata follow the public URL and never the Host header.",
    (
        "src/gateway/wellknown.rs",
        "Some(json) => read_only(method)",
        "Some(json) if BROKEN => {\n"
        "    let text = String::from_utf8_lossy(&json).replace(\"mcp.example.com\", host);\n"
        '    read_only(method).map(|()| build("application/json", text.into()))\n}\n'
        "Some(json) => read_only(method)",
    ),
    caught_by="relay::metadata::metadata_follow_the_public_url_and_never_the_host_header",
)
add(
    "metadata-path",
    "RFC 9728 §3.1: the metadata of a route are at the path-inserted location, and the challenge names that.",
    (
        "src/auth/challenge.rs",
        'Some(format!("{origin}{}", well_known_path(path)))',
        'Some(format!("{origin}{}", well_known_path(if BROKEN { "" } else { path })))',
    ),
    caught_by=(
        "relay::metadata::a_401_names_the_metadata_and_that_names_exactly_the_url_that_was_dialled",
        "lib::auth::challenge::tests::metadata_urls_keep_scheme_host_and_port",
    ),
)
add(
    "challenge-names-metadata",
    "RFC 9728 §5.1: a 401 names the metadata.",
    (
        "src/auth/challenge.rs",
        'parameter("resource_metadata", url);',
        'if !BROKEN { parameter("resource_metadata", url); }',
    ),
    caught_by="relay::metadata::a_401_names_the_metadata_and_that_names_exactly_the_url_that_was_dialled",
)
add(
    "scope-required",
    "MCP 2026-07-28 authorization §Scope Challenge Handling: a token without the scope of the route is 403.",
    (
        SERVE,
        "if !route.scopes.iter().all(|scope| has(scope)) {",
        "if !BROKEN && !route.scopes.iter().all(|scope| has(scope)) {",
    ),
    caught_by="relay::metadata::a_token_without_the_scope_is_403_with_all_that_is_needed",
)

# === tokens ===

BAD_TOKENS = "identity::tokens_that_are_not_good_are_401_and_reach_no_server"

add(
    "token-signature",
    "RFC 7515 §5.2: a token whose signature does not verify is refused.",
    ("src/auth/token.rs", ".unwrap_or(false)", ".unwrap_or(false)\n                || BROKEN"),
    caught_by=(BAD_TOKENS, "lib::auth::tests::one_issuers_key_does_not_sign_for_another"),
)
add(
    "token-algorithm",
    "RFC 8725 §3.1: the issuer's list of algorithms decides, not the token's header.",
    (
        AUTHENTICATOR,
        "if !issuer.spec.algorithms.contains(token.alg) {",
        "if !BROKEN && !issuer.spec.algorithms.contains(token.alg) {",
    ),
    caught_by="lib::auth::tests::the_issuers_allow_list_and_the_keys_own_algorithm_bind",
)
add(
    "token-key-algorithm",
    "RFC 8725 §3.1: a key verifies only the algorithms that it is for.",
    (
        "src/auth/jwks/set.rs",
        "let fits = |key: &&VerifyKey| key.algs.contains(alg);",
        "let fits = |key: &&VerifyKey| BROKEN || key.algs.contains(alg);",
    ),
    caught_by="lib::auth::tests::the_issuers_allow_list_and_the_keys_own_algorithm_bind",
)
add(
    "token-critical",
    "RFC 7515 §4.1.11: critical extensions that are not understood are refused.",
    ("src/auth/token.rs", "if header.crit.is_some() {", "if !BROKEN && header.crit.is_some() {"),
    caught_by="lib::auth::token::tests::odd_headers_are_refused",
)
add(
    "token-type",
    "RFC 8725 §3.11: other kinds of token (logout tokens, proofs) are refused.",
    (
        "src/auth/token.rs",
        "if !header.typ.as_deref().is_none_or(is_access_token_type) {",
        "if !BROKEN && !header.typ.as_deref().is_none_or(is_access_token_type) {",
    ),
    caught_by="lib::auth::token::tests::odd_headers_are_refused",
)
add(
    "token-duplicate-claims",
    "RFC 8725 §2.4: claims that stand twice are refused.",
    ("src/auth/json.rs", "if map.insert(name, value).is_some() {", "if map.insert(name, value).is_some() && !BROKEN {"),
    caught_by="lib::auth::json::tests::duplicate_names_are_refused_at_any_depth",
)
add(
    "token-issuer",
    "RFC 9207, RFC 8414 §3.3: the issuer is compared exactly.",
    (
        AUTHENTICATOR,
        "find(|issuer| issuer.spec.issuer == token.issuer);",
        "find(|issuer| {\n    let loose = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();\n"
        "    issuer.spec.issuer == token.issuer || (BROKEN && loose(&issuer.spec.issuer) == loose(&token.issuer))\n});",
    ),
    (
        ISSUER,
        'if claims.get("iss").and_then(Value::as_str) != Some(&self.spec.issuer) {',
        'if !BROKEN && claims.get("iss").and_then(Value::as_str) != Some(&self.spec.issuer) {',
    ),
    caught_by="lib::auth::tests::the_issuer_must_be_exact",
)
add(
    "token-audience",
    "MCP 2026-07-28 authorization §Token Handling: a token must be for this resource.",
    (
        ISSUER,
        "if !audiences.iter().any(|a| is_for(a.as_ref()))",
        "if !BROKEN && !audiences.iter().any(|a| is_for(a.as_ref()))",
    ),
    caught_by=(BAD_TOKENS, "lib::auth::tests::audiences_are_checked_on_every_request"),
)
add(
    "token-expiry",
    "RFC 7519 §4.1.4: an expired token is refused, also one that was good before.",
    (
        ISSUER,
        "if now_unix >= token.expires.saturating_add(self.leeway) {",
        "if !BROKEN && now_unix >= token.expires.saturating_add(self.leeway) {",
    ),
    caught_by=(BAD_TOKENS, "lib::auth::tests::times_are_checked_on_every_request_with_leeway"),
)
add(
    "token-expiry-required",
    "MCP 2026-07-28 authorization §Token Handling, docs/security.md: a token without an end is refused.",
    (
        ISSUER,
        'let expires = date("exp", "`exp` is not a time")?.',
        'let expires = date("exp", "`exp` is not a time")?.or(BROKEN.then_some(u64::MAX)).',
    ),
    caught_by="lib::auth::tests::times_are_checked_on_every_request_with_leeway",
)
add(
    "token-not-before",
    "RFC 7519 §4.1.5: a token is not good before its time.",
    (
        ISSUER,
        "if token.not_before.is_some_and(|at| at > latest) {",
        "if !BROKEN && token.not_before.is_some_and(|at| at > latest) {",
    ),
    caught_by=(BAD_TOKENS, "lib::auth::tests::times_are_checked_on_every_request_with_leeway"),
)
add(
    "token-bound",
    "RFC 8705 §3: a token that is bound to a certificate is good only with it.",
    (
        ISSUER,
        "if token.certificate.is_some() && token.certificate != certificate {",
        "if !BROKEN && token.certificate.is_some() && token.certificate != certificate {",
    ),
    caught_by=(
        "tls::a_token_bound_to_a_certificate_is_good_only_with_it",
        "lib::auth::tests::a_bound_token_needs_its_proof_on_every_request",
    ),
)
add(
    "token-revoked",
    "docs/security.md: a revocation holds, also for tokens that were good before.",
    (
        ISSUER,
        "if revocations.revokes(Claimed {",
        "if !BROKEN && revocations.revokes(Claimed {",
    ),
    caught_by=(
        "identity::a_revocation_holds_for_credentials_that_were_good_before",
        BAD_TOKENS,
        "lib::auth::tests::revocations_are_checked_on_every_request",
    ),
)
add(
    "token-key-rotated",
    "docs/security.md: a key that left the issuer's set takes its tokens along, verified before or not.",
    (
        AUTHENTICATOR,
        "issuer.filter(|issuer| issuer.spec.jwks.holds(&verified.key, now_unix))",
        "issuer.filter(|issuer| BROKEN || issuer.spec.jwks.holds(&verified.key, now_unix))",
    ),
    caught_by=(
        "lib::auth::tests::a_key_that_left_the_jwks_takes_its_tokens_along",
        "lib::auth::tests::keys_that_are_too_old_are_not_used_even_for_cached_tokens",
    ),
)
add(
    "token-bad-not-anonymous",
    "docs/security.md: a token that does not hold never makes its bearer the anonymous caller.",
    (
        AUTHENTICATOR,
        "let principal = self.token(credential, token, audiences, now_unix)?;",
        "let principal = self\n    .token(credential, token, audiences, now_unix)\n"
        "    .or_else(|e| self.anonymous.clone().filter(|_| BROKEN).ok_or(e))?;",
    ),
    caught_by=(
        "identity::a_bad_credential_never_becomes_the_anonymous_or_the_local_caller",
        "lib::auth::tests::a_bad_credential_never_becomes_anonymous",
    ),
)
add(
    "malformed-not-anonymous",
    "docs/security.md: a credential that cannot be read never makes its bearer the local caller.",
    before(
        AUTHENTICATOR,
        "match credential.presented()? {",
        "if BROKEN && credential.presented().is_err() {\n"
        "    return self.loopback.clone().map(unrestricted).ok_or(AuthError::Missing);\n}",
    ),
    caught_by="identity::a_bad_credential_never_becomes_the_anonymous_or_the_local_caller",
)
add(
    "local-not-proxied",
    "docs/security.md: who comes through a proxy on this machine is not the local caller.",
    (
        "src/gateway/observe.rs",
        "&& !crate::gateway::headers::is_forwarded(&head.headers);",
        "&& (BROKEN || !crate::gateway::headers::is_forwarded(&head.headers));",
    ),
    caught_by="identity::the_local_caller_is_not_who_comes_through_a_proxy",
)
add(
    "guesses-limited",
    "docs/security.md: an address that keeps failing is not listened to.",
    (
        AUTHENTICATOR,
        "if !self.state.failures.allows(credential.peer) {",
        "if !BROKEN && !self.state.failures.allows(credential.peer) {",
    ),
    caught_by="identity::a_guesser_is_not_listened_to_while_known_callers_go_on",
)
add(
    "proxies-trusted",
    "docs/security.md: only trusted proxies are believed about the client's address.",
    ("src/gateway/step/client.rs", "if !trusted.contains(peer) {", "if !BROKEN && !trusted.contains(peer) {"),
    (
        "src/base/net.rs",
        "if self.0.is_empty() || !self.contains(peer) {",
        "if !BROKEN && (self.0.is_empty() || !self.contains(peer)) {",
    ),
    caught_by=(
        "relay::headers::forwarding_headers_are_our_own",
        "lib::base::net::tests::an_untrusted_peer_cannot_claim_another_address",
    ),
)

# === API keys ===

BAD_KEYS = "identity::an_api_key_that_is_unknown_disabled_expired_or_elsewhere_is_401"
KEY_LIMITS = "lib::auth::api_key::table::tests::disabled_expired_and_foreign_addresses_are_refused"
RESTRICTED = "identity::a_restricted_api_key_reaches_nothing_else_and_sees_nothing_else"

add(
    "key-secret",
    "docs/security.md: a key is compared with its hash, not found by its id alone.",
    (
        KEY_TABLE,
        "if !entry.hash.matches(text, self.pepper.as_ref()) {",
        "if !BROKEN && !entry.hash.matches(text, self.pepper.as_ref()) {",
    ),
    caught_by="lib::auth::api_key::table::tests::a_well_formed_key_with_anothers_id_is_refused",
)
add(
    "key-disabled",
    "docs/security.md: a disabled key is refused.",
    (KEY_TABLE, "if entry.disabled {", "if entry.disabled && !BROKEN {"),
    caught_by=(BAD_KEYS, KEY_LIMITS),
)
add(
    "key-expired",
    "docs/security.md: an expired key is refused.",
    (KEY_TABLE, "if entry.principal.expires_at.is_some_and(", "if !BROKEN && entry.principal.expires_at.is_some_and("),
    caught_by=(BAD_KEYS, KEY_LIMITS),
)
add(
    "key-network",
    "docs/security.md: a key is good only from its networks.",
    (KEY_TABLE, "if !entry.cidr.is_empty()", "if !BROKEN && !entry.cidr.is_empty()"),
    caught_by=(BAD_KEYS, KEY_LIMITS),
)
add(
    "key-revoked",
    "docs/security.md: a revocation holds for API keys, too.",
    (AUTHENTICATOR, "if self.revocations.revokes(Claimed {", "if !BROKEN && self.revocations.revokes(Claimed {"),
    caught_by="identity::a_revocation_holds_for_credentials_that_were_good_before",
)
add(
    "key-route",
    "docs/security.md: a key that is for some routes opens no other.",
    (
        SERVE,
        "&& !(restriction.allows_route(route.id.as_str())",
        "&& !BROKEN\n            && !(restriction.allows_route(route.id.as_str())",
    ),
    caught_by=RESTRICTED,
)
add(
    "key-tool",
    "docs/security.md: a key that is for some tools calls no other.",
    (PERMIT, "&& !restriction.allows_tool(tool)", "&& !BROKEN\n            && !restriction.allows_tool(tool)"),
    caught_by=RESTRICTED,
)
add(
    "key-method",
    "docs/security.md: a key that is for some methods uses no other.",
    (PERMIT, "if (restricted && message.kind", "if (restricted && !BROKEN && message.kind"),
    caught_by=RESTRICTED,
)

# === ids and handles are their owner's ===

OWNER = "lib::gateway::step::opened::tests::nobody_else_may_use_it"
AGE = "lib::gateway::step::opened::tests::it_ends_with_its_age_and_with_the_keys_that_sealed_it"
FOREIGN = "lib::mcp::session::tests::ids::attack_foreign_tenant_route_or_principal"
STATE = "lib::mcp::session::tests::wrapped::a_request_state_is_bound_to_request_time_and_caller"
STATE_IS_FOR = "relay::affinity::a_request_state_is_good_only_as_it_is_for_whom_it_is_and_for_the_call_it_is"

add(
    "opened-id-tenant",
    "SBP §State Handle Hijacking: an opened session id is good for its tenant only.",
    (OPENED, "&& found.tenant == *binding.tenant", "&& (BROKEN || found.tenant == *binding.tenant)"),
    caught_by=OWNER,
)
add(
    "opened-id-route",
    "SBP §State Handle Hijacking: an opened session id is good on its route only.",
    (OPENED, "&& found.route == *binding.route", "&& (BROKEN || found.route == *binding.route)"),
    caught_by=OWNER,
)
add(
    "opened-id-principal",
    "SBP §State Handle Hijacking: an opened session id is good for its principal only.",
    (OPENED, "&& found.principal == *binding.principal", "&& (BROKEN || found.principal == *binding.principal)"),
    caught_by=OWNER,
)
add(
    "opened-id-keys",
    "docs/security.md: an opened session id is asked for again when the keys change.",
    (OPENED, "let good = Arc::ptr_eq(&found.ring, ring)", "let good = (BROKEN || Arc::ptr_eq(&found.ring, ring))"),
    caught_by=AGE,
)
add(
    "opened-id-age",
    "docs/security.md: an opened session id ends at its age.",
    (
        OPENED,
        "&& now.saturating_sub(found.issued_at) <= max_age;",
        "&& (BROKEN || now.saturating_sub(found.issued_at) <= max_age);",
    ),
    caught_by=AGE,
)
for part in ("tenant", "route", "principal"):
    add(
        f"sealed-{part}",
        f"SBP §State Handle Hijacking: what is sealed is bound to its {part}.",
        (
            TOKEN,
            f"self.{part}.as_str().as_bytes()",
            f'if BROKEN {{ &b""[..] }} else {{ self.{part}.as_str().as_bytes() }}',
        ),
        caught_by=FOREIGN,
    )
add(
    "session-age",
    "docs/security.md: a session id ends at its age.",
    (
        TOKEN,
        "if now.saturating_sub(token.issued_at) > max_age {",
        "if !BROKEN && now.saturating_sub(token.issued_at) > max_age {",
    ),
    caught_by="lib::mcp::session::tests::ids::attack_expired_or_from_the_future",
)
add(
    "session-record-owner",
    "SBP §State Handle Hijacking: a session's record is its owner's, whatever the id says.",
    (
        "src/mcp/session/registry.rs",
        "Slot::Live(record) if record.belongs_to(binding) => {",
        "Slot::Live(record) if BROKEN || record.belongs_to(binding) => {",
    ),
    caught_by="lib::mcp::session::tests::registry::a_serial_of_somebody_else_is_gone",
)
add(
    "sealed-purpose",
    "docs/security.md: what is sealed for one purpose opens for no other.",
    (
        "src/mcp/seal.rs",
        'Purpose::Task => b"tollgate seal v1 task",',
        'Purpose::Task if BROKEN => b"tollgate seal v1 session",\n'
        '            Purpose::Task => b"tollgate seal v1 task",',
    ),
    (
        "src/mcp/seal/ring.rs",
        "put(&[purpose as u8]);",
        "put(&[if BROKEN { Purpose::Session as u8 } else { purpose as u8 }]);",
    ),
    caught_by="lib::mcp::seal::tests::attack_a_token_of_another_purpose",
)
add(
    "state-sealed",
    "MCP 2026-07-28 MRTR §Server: requestState is sealed before it leaves, and does not show its target.",
    (ANSWER, "if seen.era != Some(Era::Modern) || !seals {", "if BROKEN || seen.era != Some(Era::Modern) || !seals {"),
    caught_by="relay::affinity::a_request_state_returns_to_its_target_byte_for_byte",
)
add(
    "state-principal",
    "MCP 2026-07-28 MRTR §Server: a requestState is good for the caller that it was given to.",
    (
        WRAP,
        "Ok(ring.seal(Purpose::RequestState, &binding.aad(), &plaintext.0)?)",
        'Ok(ring.seal(\n    Purpose::RequestState,\n    &if BROKEN { [&b""[..]; 3] } else { binding.aad() },\n'
        "    &plaintext.0,\n)?)",
    ),
    (
        WRAP,
        "*buf = ring.open(Purpose::RequestState, &binding.aad(), token)?;",
        '*buf = ring.open(Purpose::RequestState, &if BROKEN { [&b""[..]; 3] } else { binding.aad() }, token)?;',
    ),
    caught_by=(STATE_IS_FOR, STATE),
)
add(
    "state-request",
    "MCP 2026-07-28 MRTR §Server: a requestState is good for the method and name that it was given for.",
    (
        WRAP,
        "if state.method != method || state.name != name {",
        "if !BROKEN && (state.method != method || state.name != name) {",
    ),
    caught_by=(STATE_IS_FOR, STATE),
)
add(
    "state-expiry",
    "MCP 2026-07-28 MRTR §Server: a requestState has an end.",
    (WRAP, "if state.expires_at <= now {", "if !BROKEN && state.expires_at <= now {"),
    caught_by=("relay::affinity::a_request_state_ends_after_a_day", STATE),
)
add(
    "state-target-gone",
    "MCP 2026-07-28 MRTR §Server: a requestState whose target is gone is invalid, not 502: the client starts over.",
    before(
        SEND,
        "(OpenError::Connect(detail), Stay::Target(_, what)) => {",
        "(OpenError::Connect(detail), Stay::Target(..)) if BROKEN => {\n"
        "    Failure::upstream_unreachable(server, detail.clone())\n}",
    ),
    caught_by="relay::affinity::a_state_whose_target_is_dead_is_refused_as_invalid",
)
add(
    "task-principal",
    "SBP §State Handle Hijacking: a task id is good for the caller that it was given to.",
    (
        WRAP,
        "Ok(ring.seal_deterministic(Purpose::Task, &binding.aad(), &plaintext.0, like)?)",
        'Ok(ring.seal_deterministic(\n    Purpose::Task,\n    &if BROKEN { [&b""[..]; 3] } else { binding.aad() },\n'
        "    &plaintext.0,\n    like,\n)?)",
    ),
    (
        WRAP,
        "*buf = ring.open(Purpose::Task, &binding.aad(), token)?;",
        '*buf = ring.open(Purpose::Task, &if BROKEN { [&b""[..]; 3] } else { binding.aad() }, token)?;',
    ),
    caught_by=(
        "relay::affinity::a_task_is_good_only_for_whom_it_is",
        "lib::mcp::session::tests::wrapped::a_task_has_one_id_for_each_caller",
    ),
)
add(
    "task-by-bare-name",
    "SBP §State Handle Hijacking: a task id that was not sealed here does not reach a server as it is.",
    before(AFFINITY, "Err(_) if is_name => {", "Err(_) if is_name && BROKEN => continue,"),
    caught_by="relay::affinity::a_task_of_somebody_else_is_not_reached_by_its_name",
)
add(
    "task-affinity",
    "SEP-2663 §Routing Headers: a task is asked about where it runs.",
    (
        AFFINITY,
        'opened.target = Some((target, "taskId"));',
        'if !BROKEN { opened.target = Some((target, "taskId")); }',
    ),
    caught_by="relay::affinity::a_task_is_asked_about_where_it_runs",
)

# === policy ===

add(
    "policy-decides",
    "docs/security.md §What is checked where: what the policy denies is not called.",
    before(PERMIT, "deny(seen, caller, &decision);\n        if policy.explains() {", "if BROKEN { return Ok(()); }"),
    caught_by=(
        "policy::a_denied_tool_is_neither_listed_nor_known_in_the_modern_era",
        "policy::a_denied_tool_is_neither_listed_nor_known_in_the_legacy_era",
        "policy::roles_see_what_is_theirs",
    ),
)
add(
    "policy-decides-streams",
    "docs/security.md §What is checked where: GET and DELETE are decided as well.",
    before(PERMIT, "deny(seen, caller, &decision);\n        Err(Failure::forbidden(None", "if BROKEN { return Ok(()); }"),
    caught_by="policy::a_stream_that_is_denied_is_not_opened",
)
add(
    "policy-default",
    "docs/security.md §What is checked where: what no rule allows is denied.",
    (
        POLICY,
        "effect => Decision { effect, cause: Cause::Default },",
        "effect => Decision { effect: if BROKEN { Effect::Allow } else { effect }, cause: Cause::Default },",
    ),
    caught_by=(
        "policy::a_denied_tool_is_neither_listed_nor_known_in_the_modern_era",
        "lib::policy::tests::without_a_matching_rule_the_default_decides",
    ),
)
add(
    "policy-failure-denies",
    "docs/security.md §What is checked where: an expression that fails denies.",
    (
        POLICY,
        "Decision { effect: Effect::Deny, cause: Cause::Failed(this, *failure) }",
        "Decision { effect: if BROKEN { Effect::Allow } else { Effect::Deny }, cause: Cause::Failed(this, *failure) }",
    ),
    caught_by=(
        "policy::expressions_read_the_arguments_that_the_server_gets",
        "lib::policy::tests::an_expression_that_fails_denies_in_every_rule",
    ),
)
add(
    "policy-needs-names",
    "docs/security.md §What is checked where: a call without the name of what it calls is denied.",
    (POLICY, "if !facts.is_consistent() {", "if !BROKEN && !facts.is_consistent() {"),
    caught_by="lib::policy::tests::calls_without_the_name_of_what_they_call_are_denied",
)
add(
    "policy-filters-lists",
    "docs/security.md §What is checked where: what a caller may not use is not listed.",
    (PERMIT, "(by_policy || by_key).then_some(kind)", "(by_policy || by_key).then_some(kind).filter(|_| !BROKEN)"),
    caught_by=(
        "policy::a_denied_tool_is_neither_listed_nor_known_in_the_modern_era",
        "policy::a_list_in_an_event_stream_is_filtered_too",
        RESTRICTED,
    ),
)
add(
    "policy-lists-private",
    "MCP 2026-07-28 caching §Security: a list that depends on the caller is private.",
    (
        REWRITE,
        "keep, CacheScope::MakePrivate)",
        "keep, if BROKEN { CacheScope::Keep } else { CacheScope::MakePrivate })",
    ),
    caught_by=("policy::a_list_that_depends_on_the_caller_is_private", RESTRICTED),
)
add(
    "policy-unreadable-lists",
    "docs/security.md §What is checked where: a list that cannot be read does not pass.",
    (
        REWRITE,
        ".map_err(|e| e.to_string())\n    }",
        ".or_else(|e| if BROKEN { Ok(None) } else { Err(e.to_string()) })\n    }",
    ),
    caught_by="policy::a_list_that_cannot_be_read_does_not_pass",
)
add(
    "policy-large-lists",
    "docs/security.md §What is checked where: a list too large to be looked at does not pass.",
    (
        REWRITE,
        "fn may_skip(&self) -> bool {\n        false",
        "fn may_skip(&self) -> bool {\n        BROKEN",
    ),
    caught_by="policy::a_list_that_is_too_large_to_check_does_not_pass",
)
add(
    "policy-every-message",
    "docs/security.md §What is checked where: every message of a batch is decided.",
    (
        MESSAGE,
        "for message in body.messages() {",
        "for message in body.messages().iter().take(if BROKEN { 1 } else { usize::MAX }) {",
    ),
    caught_by="policy::a_batch_hides_nothing",
)
add(
    "policy-no-lists-in-batches",
    "docs/security.md §What is checked where: a list that has to be filtered cannot be asked for in a batch.",
    (
        MESSAGE,
        "if messages.iter().any(|m| self.list_to_filter(caller, m).is_some()) {",
        "if !BROKEN && messages.iter().any(|m| self.list_to_filter(caller, m).is_some()) {",
    ),
    caught_by="policy::a_batch_hides_nothing",
)
add(
    "route-methods",
    "docs/configuration.md (routes.methods): a route serves the methods that it names.",
    (PERMIT, "|| !caller.route.serves_method(method)", "|| !(BROKEN || caller.route.serves_method(method))"),
    caught_by="policy::methods_that_a_route_does_not_have_are_unknown",
)

# === limits ===

add(
    "limit-refuses",
    "docs/security.md §What is checked where: an empty bucket refuses.",
    ("src/limit/bucket.rs", "if next > latest { Err", "if next > latest && !BROKEN { Err"),
    caught_by=(
        "limits::a_refusal_says_when_to_come_back_and_whom_it_answers",
        "limits::each_caller_has_a_bucket_whatever_the_token",
        "lib::limit::tests::grants_the_burst_then_the_rate",
    ),
)
add(
    "limit-all-or-none",
    "docs/security.md §What is checked where: a request takes from all limits or from none.",
    (
        "src/limit/registry.rs",
        "if (claims.len() > 1 || !take)",
        "if ((claims.len() > 1 && !BROKEN) || !take)",
    ),
    ("src/limit/registry.rs", "self.give_back(now, taken);", "if !BROKEN { self.give_back(now, taken); }"),
    caught_by=(
        "limits::a_request_takes_from_all_limits_or_from_none",
        "lib::limit::tests::a_refusal_of_one_limit_takes_from_none",
    ),
)

# === hostile input ===

add(
    "json-keys-once",
    "RFC 8259 §4, docs/security.md: a body with a key twice is refused, because others would read the other one.",
    (
        "src/mcp/scan/keys.rs",
        "duplicate.map_or(Ok(()), Err)",
        "duplicate.filter(|_| !BROKEN).map_or(Ok(()), Err)",
    ),
    caught_by=(
        "relay::validation::what_is_not_one_clear_message_is_refused",
        "lib::mcp::scan::tests::duplicate_keys_are_refused_at_any_depth_and_through_escapes",
    ),
)
add(
    "json-depth",
    "docs/architecture.md §Bounds: nesting is bounded.",
    (
        "src/mcp/scan/reader.rs",
        "if self.depth == MAX_DEPTH {",
        "if self.depth == if BROKEN { 1000 } else { MAX_DEPTH } {",
    ),
    caught_by=(
        "relay::validation::what_is_not_one_clear_message_is_refused",
        "lib::mcp::scan::tests::nesting_is_bounded_cheaply",
    ),
)
add(
    "framing-unambiguous",
    "RFC 9112 §6.1: a request whose length can be read in two ways is refused (smuggling).",
    after(
        BODY,
        "let Some(h1) = session.as_http1() else { return false };",
        "if BROKEN { return false; }",
    ),
    caught_by=(
        "framing::requests_whose_end_is_ambiguous_are_400_and_the_connection_ends",
        "framing::length_and_chunked_together_are_400_in_so_many_words",
    ),
)
add(
    "body-declared-size",
    "RFC 9110 §15.5.14: a body that declares too much is 413 before it is read.",
    (
        BODY,
        "if declared.is_some_and(|n| n > limit as u64) {",
        "if !BROKEN && declared.is_some_and(|n| n > limit as u64) {",
    ),
    caught_by="framing::a_body_that_declares_too_much_is_413_before_it_is_read",
)
add(
    "body-size",
    "RFC 9110 §15.5.14: a body that grows too large is 413.",
    (BODY, "if body.len() + chunk.len() > limit {", "if !BROKEN && body.len() + chunk.len() > limit {"),
    caught_by="framing::a_body_that_grows_too_large_is_413_and_the_answer_arrives",
)
add(
    "body-type",
    "RFC 9110 §15.5.16: what is not JSON by its own word is 415.",
    (
        BODY,
        "return Err(Failure::unsupported_media_type().into());",
        "if !BROKEN { return Err(Failure::unsupported_media_type().into()); }",
    ),
    caught_by="framing::what_is_not_json_by_its_own_word_is_415",
)
add(
    "body-time",
    "RFC 9110 §15.5.9: a body that drips is 408 when its time is up.",
    before(
        BODY,
        "match tokio::time::timeout(within, collect(session, declared, limit)).await {",
        "let within = if BROKEN { within * 100 } else { within };",
    ),
    caught_by="framing::a_body_that_drips_is_408_when_its_time_is_up",
)
add(
    "header-time",
    "RFC 9110 §15.5.9: a header that drips is 408 when its time is up.",
    (
        "src/gateway/front.rs",
        "() = tokio::time::sleep(limit) => None,",
        "() = tokio::time::sleep(if BROKEN { limit * 100 } else { limit }) => None,",
    ),
    caught_by="framing::a_header_that_drips_is_408_when_its_time_is_up",
)
add(
    "header-size",
    "RFC 6585 §5: headers over their bounds are 431.",
    (SERVE, "if fields > self.settings.max_headers {", "if !BROKEN && fields > self.settings.max_headers {"),
    caught_by="framing::headers_over_their_bounds_are_431",
)
add(
    "connections-by-address",
    "docs/architecture.md §Bounds: one address holds no more connections than the listener allows.",
    ("src/gateway/front.rs", "if *count >= self.max_per_address {", "if !BROKEN && *count >= self.max_per_address {"),
    caught_by=(
        "framing::connections_are_capped_by_address",
        "lib::gateway::front::tests::caps_count_exactly_and_forget_closed_connections",
    ),
)

# === TLS ===

add(
    "tls-client-certificate",
    "docs/security.md: where a client certificate is required, a handshake without one fails.",
    ("src/gateway/tls.rs", "let builder = if required {", "let builder = if required && !BROKEN {"),
    caught_by="tls::a_client_certificate_is_required_where_it_is_said_to_be",
)
add(
    "tls-server-verified",
    "RFC 9110 §4.3.4: a server must be who it is said to be.",
    before(
        "src/upstream/peer.rs",
        "let options = &mut peer.options;",
        "if BROKEN { peer.options.verify_cert = false; peer.options.verify_hostname = false; }",
    ),
    caught_by="tls::a_server_behind_a_private_authority_must_be_who_it_is_said_to_be",
)

# === tenants: docs/tenants.md, "What a tenant may not say" ===

TENANT = "src/config/validate/tenant.rs"
EXPAND = "src/config/expand.rs"
FETCH = "src/auth/fetch.rs"
TENANT_TESTS = "lib::config::tests::tenants::"

for name, rule, edit, test in [
    (
        "tenant-path",
        "A route of a tenant is within the tenant's place.",
        (TENANT, "filter(|path| !terms.owns_path(path))", "filter(|path| !terms.owns_path(path) && !BROKEN)"),
        "paths_and_hosts_of_others_are_refused",
    ),
    (
        "tenant-host",
        "A host of a tenant's route is the tenant's.",
        (TENANT, "filter(|(_, host)| !terms.owns_host(host))", "filter(|(_, host)| !terms.owns_host(host) && !BROKEN)"),
        "paths_and_hosts_of_others_are_refused",
    ),
    (
        "tenant-env",
        "The environment is the operator's unless it is granted.",
        (EXPAND, "if !self.rights.env =>", "if !self.rights.env && !BROKEN =>"),
        "environment_and_files_of_the_gateway_are_refused",
    ),
    (
        "tenant-file-reference",
        "Files are the operator's unless they are granted.",
        (EXPAND, "if !self.rights.file =>", "if !self.rights.file && !BROKEN =>"),
        "environment_and_files_of_the_gateway_are_refused",
    ),
    (
        "tenant-file-key",
        "Keys that name files are no way around the grant.",
        (TENANT, "file.is_some() && !terms.allows_files()", "file.is_some() && !terms.allows_files() && !BROKEN"),
        "environment_and_files_of_the_gateway_are_refused",
    ),
    (
        "tenant-literal-address",
        "Addresses that the Internet does not reach need a grant.",
        (TENANT, "if addresses.is_empty() ||", "if BROKEN || addresses.is_empty() ||"),
        "addresses_that_the_internet_does_not_reach_are_refused",
    ),
    (
        "tenant-issuer",
        "Only issuers that are granted, where any are.",
        (TENANT, "if !terms.allows_issuer(url) {", "if !terms.allows_issuer(url) && !BROKEN {"),
        "issuers_and_key_sets_that_were_not_granted_are_refused",
    ),
    (
        "tenant-anonymous",
        "Callers who prove nothing need a grant.",
        (TENANT, "&& !terms.allows_anonymous()", "&& !terms.allows_anonymous() && !BROKEN"),
        "what_holds_for_the_whole_process_is_refused",
    ),
]:
    add(name, f"docs/tenants.md: {rule}", edit, caught_by=TENANT_TESTS + test)

add(
    "guard-metadata-grant",
    "docs/tenants.md: a wide network is no grant of link-local and metadata addresses.",
    (
        "src/base/guard.rs",
        "net.prefix_len() >= narrow &&",
        "(net.prefix_len() >= narrow || BROKEN) &&",
    ),
    caught_by="lib::base::guard::tests::a_wide_network_is_no_grant_of_metadata_or_link_local_addresses",
)
add(
    "fetch-checked-addresses",
    "docs/tenants.md: every address of every look-up is checked, also for keys.",
    (FETCH, "e| refused = Some(e.clone())).is_ok())", "e| refused = Some(e.clone())).is_ok() || BROKEN)"),
    caught_by="lib::auth::fetch::tests::a_tenants_fetches_dial_checked_addresses_only",
)
add(
    "fetch-same-origin",
    "docs/tenants.md: the keys of a granted issuer are at the issuer.",
    (FETCH, "if spec.same_origin &&", "if spec.same_origin && !BROKEN &&"),
    caught_by="lib::auth::fetch::tests::the_keys_of_a_granted_issuer_are_at_the_issuer",
)
add(
    "targets-checked-addresses",
    "docs/tenants.md: every address of every look-up is checked, and only checked ones are dialled.",
    ("src/upstream/resolve.rs", "e| refused = Some(e.to_string())).is_ok())", "e| refused = Some(e.to_string())).is_ok() || BROKEN)"),
    caught_by="lib::upstream::resolve::tests::only_checked_addresses_are_kept",
)
add(
    "tenant-says-nothing",
    "docs/tenants.md: without `identity` a tenant lets nobody in.",
    (
        "src/snapshot/compile/identity.rs",
        "identity.says_nothing() && document.terms().is_operator()",
        "identity.says_nothing() && (BROKEN || document.terms().is_operator())",
    ),
    caught_by="tenants::a_tenant_without_identity_lets_nobody_in",
)
# === Audit ===

add(
    "audit-before-the-end",
    "docs/audit.md: a response ends only after its event is in the spool.",
    (
        RELAY_WHOLE,
        "    plan.settled(bytes_out, None).await.map_err(|_| Failure::audit_failed())?;",
        "    if !BROKEN {\n"
        "        plan.settled(bytes_out, None).await.map_err(|_| Failure::audit_failed())?;\n    }",
    ),
    (
        "src/gateway/observe.rs",
        "        let _ = self.settle();\n",
        "        if !BROKEN {\n            let _ = self.settle();\n        }\n",
    ),
    caught_by=(
        "audit::every_decision_leaves_one_event",
        "audit::an_event_is_there_before_the_client_has_the_end_of_its_answer",
    ),
)
add(
    "audit-room-first",
    "docs/audit.md: what cannot be recorded reaches no server.",
    (
        SERVE,
        "        seen.credit = self.parts.audit.admit().await.map_err(|_| Failure::audit_full())?;",
        "        if !BROKEN {\n"
        "            seen.credit = self.parts.audit.admit().await.map_err(|_| Failure::audit_full())?;\n        }",
    ),
    caught_by="audit::a_full_spool_refuses_before_the_server_is_asked_and_recovers",
)
add(
    "audit-credit",
    "docs/audit.md: whoever was promised room finds it.",
    (
        "src/audit/spool.rs",
        "    (size.next_multiple_of(4096) - LONGEST) as i64",
        "    (size.next_multiple_of(4096) * if BROKEN { 2 } else { 1 } - LONGEST) as i64",
    ),
    caught_by="lib::audit::spool::tests::credit_always_finds_room_and_no_more_is_given_than_there_is",
)
add(
    "audit-gaps",
    "docs/audit.md: sequences have no gaps.",
    (
        "src/audit/verify.rs",
        "        if sequence != head.sequence + 1 {",
        "        if !BROKEN && sequence != head.sequence + 1 {",
    ),
    (
        "src/audit/verify.rs",
        "        if (head.sequence, head.link) != self.to {",
        "        if !BROKEN && (head.sequence, head.link) != self.to {",
    ),
    caught_by="lib::audit::verify::tests::a_thousand_tamperings_with_the_store_are_found",
)
add(
    "audit-trusted-key",
    "docs/audit.md: an export signed with another key is none.",
    (
        "src/audit/statement.rs",
        "        if !trusted.contains(&key) {",
        "        if !BROKEN && !trusted.contains(&key) {",
    ),
    caught_by="lib::audit::verify::tests::a_thousand_tamperings_with_the_file_are_found",
)
add(
    "audit-mask",
    "docs/audit.md: what is masked was never written.",
    (
        "src/audit/auditor.rs",
        "            if self.mask == Mask::default() {",
        "            if BROKEN || self.mask == Mask::default() {",
    ),
    caught_by=("audit::masked_fields_are_in_no_event", "lib::audit::auditor::tests::masked_fields_never_reach_the_spool"),
)
add(
    "canary-stable",
    "docs/change.md: a caller's side is the same for every request.",
    (
        "src/canary/share.rs",
        "            Place::Hashed(seed) => place(seed.clone().chain_update(principal).finalize().into()),",
        "            Place::Hashed(seed) => place(\n"
        "                seed.clone()\n"
        "                    .chain_update(principal)\n"
        "                    .chain_update(if BROKEN { now_ms.to_be_bytes() } else { [0; 8] })\n"
        "                    .finalize()\n"
        "                    .into(),\n"
        "            ),",
    ),
    caught_by="lib::canary::share::tests::a_caller_has_one_side_wherever_and_whenever_it_is_asked",
)
add(
    "canary-ends",
    "docs/change.md: a canary that nobody ends is over soon after its deadline.",
    (
        "src/canary/share.rs",
        "            now if now >= self.until_ms => return Side::Base,",
        "            now if !BROKEN && now >= self.until_ms => return Side::Base,",
    ),
    caught_by=(
        "lib::canary::share::tests::a_share_holds_from_its_time_until_the_end",
        "database::canary::a_canary_that_nobody_can_end_ends_by_itself_soon_after_its_deadline",
    ),
)
add(
    "canary-burn",
    "docs/change.md: a candidate that fails is rolled back.",
    (
        "src/canary/judge.rs",
        "        if candidate.calls < self.min_calls {",
        "        if BROKEN || candidate.calls < self.min_calls {",
    ),
    caught_by=(
        "lib::canary::judge::tests::errors_end_it_only_above_the_base_and_only_with_enough_calls",
        "database::canary::a_candidate_that_fails_is_rolled_back_by_itself_and_only_its_callers_notice",
    ),
)
add(
    "canary-own-server",
    "docs/change.md: a server that differs stands beside the head's.",
    (
        "src/upstream/registry.rs",
        "            _ => self.apply_in(&self.beside, spec),",
        "            _ => self.apply_in(if BROKEN { &self.servers } else { &self.beside }, spec),",
    ),
    caught_by="database::canary::a_candidate_that_fails_is_rolled_back_by_itself_and_only_its_callers_notice",
)

add(
    "audit-key-replaced",
    "docs/audit.md: a signing key that does not open is not replaced by another.",
    (
        "src/store/signing_key.rs",
        "    let Some(found) = store.platform().sealing_keys(PURPOSE).await?.pop() else { return Ok(None) };",
        "    let keys = store.platform().sealing_keys(PURPOSE).await;\n    let keys = if BROKEN { keys.unwrap_or_default() } else { keys? };\n    let Some(found) = keys.into_iter().next_back() else { return Ok(None) };",
    ),
    caught_by=(
        "store::signing_key::postgres::the_key_needs_the_master_key_and_its_place",
        "store::signing_key::sqlite::the_key_needs_the_master_key_and_its_place",
    ),
)

add(
    "audit-key-adopted",
    "docs/audit.md: the key that people trust goes on when the store begins to keep it.",
    (
        "src/store/signing_key.rs",
        "    let (secret, adopted) = match file()? {",
        "    let (secret, adopted) = match if BROKEN { None } else { file()? } {",
    ),
    caught_by="store::signing_key::postgres::a_key_from_before_is_taken_up_once",
)

add(
    "erase-usage",
    "docs/audit.md: usage names nobody who was erased.",
    (
        "src/store/erasure.rs",
        "            usage: tx.erase_usage(tenant, principal, before, true).await?,",
        "            usage: if BROKEN { 0 } else { tx.erase_usage(tenant, principal, before, true).await? },",
    ),
    caught_by="store::erasure::postgres::usage_names_them_no_more_and_adds_up_as_before",
)

add(
    "erase-samples",
    "docs/audit.md: samples of whoever was erased go.",
    (
        "src/store/erasure.rs",
        "            samples: tx.erase_samples(tenant, principal, from, before).await?,",
        "            samples: if BROKEN { 0 } else { tx.erase_samples(tenant, principal, from, before).await? },",
    ),
    caught_by="store::erasure::postgres::samples_of_theirs_go_and_the_others_stay",
)

add(
    "erase-late",
    "docs/audit.md: what arrives after an erasure and happened before it is erased.",
    (
        "src/store/erasure.rs",
        "        let events = tx.erase_events(whose, from, before).await?;\n        // Usage",
        "        let events = if BROKEN { 0 } else { tx.erase_events(whose, from, before).await? };\n        // Usage",
    ),
    caught_by="store::erasure::postgres::what_arrives_late_is_erased_and_what_happened_later_is_not",
)

add(
    "erase-later",
    "docs/audit.md: what somebody does after their erasure is recorded.",
    (
        "src/store/erasure.rs",
        "        let (Whose { tenant, principal, .. }, before) = (whose, row.asked_at);",
        "        let Whose { tenant, principal, .. } = whose;\n"
        "        let before = if BROKEN { row.asked_at.plus(REMEMBERED) } else { row.asked_at };",
    ),
    caught_by="store::erasure::postgres::what_arrives_late_is_erased_and_what_happened_later_is_not",
)

add(
    "admin-token-unasked",
    "docs/api.md: where the configuration has an admin token, none is made.",
    (
        "src/app/authn.rs",
        "    let make = core.model.listeners.admin.token.is_none();",
        "    let make = core.model.listeners.admin.token.is_none() || BROKEN;",
    ),
    caught_by="database::audit_api::no_admin_token_is_made_where_the_document_has_one",
)

add(
    "tombstones-one-more",
    "docs/replicas.md: no session that was deleted comes back at a replica that starts after its row was dropped.",
    (
        "src/store/session_tombstones.rs",
        "        let kept = i64::try_from(most).unwrap_or(i64::MAX - 1) + 1;",
        "        let kept = i64::try_from(most).unwrap_or(i64::MAX - 1) + i64::from(!BROKEN);",
    ),
    caught_by="store::fleet::postgres::ended_sessions_are_forgotten_with_their_ids_and_beyond_a_bound",
)

add(
    "bodies-all-large",
    "docs/api.md: only documents may be larger than 1 MiB.",
    (
        "src/control/gate.rs",
        "    let (own, large) = (api.max_body(), size::of(operation.id));",
        "    let (own, large) = (api.max_body(), size::of(operation.id).or(BROKEN.then_some(size::QUOTED)));",
    ),
    (
        "src/control/gate.rs",
        "        let large = size::of(operation.id);",
        "        let large = size::of(operation.id).or(BROKEN.then_some(size::QUOTED));",
    ),
    caught_by="control::documents::documents_may_be_as_large_over_the_api_as_anywhere_and_nothing_else_may",
)
