"""What is sent, and what must come back (docs/architecture.md, "Errors")."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from suite import Suite, b64, encode
from wire import META, Connection, Reply, call, head, modern_headers

MIB = 1024 * 1024
PARSE, INVALID, PARAMS, MISMATCH, VERSION = -32700, -32600, -32602, -32020, -32022
TOO_LARGE, TOO_SLOW, NO_SESSION, NO_CREDENTIAL = 41300, 40800, 40400, 40100
# Whatever reaches the server with this in it should not have.
MARK = "smuggled"


@dataclass(frozen=True)
class Want:
    """What must come back."""

    status: int | tuple[int, ...]
    code: int | None = None
    # Whether the gateway must close the connection; None: either.
    closed: bool | None = None
    # Whether a challenge must name the protected-resource metadata.
    challenge: bool = False
    # Whether the server may see something of it.
    relayed: bool = False
    seconds: float = 15.0

    def __str__(self) -> str:
        words = [str(self.status) if isinstance(self.status, int) else " or ".join(str(s or "–") for s in self.status)]
        if self.code is not None:
            words.append(str(self.code))
        if self.closed:
            words.append("close")
        return " ".join(words)


Case = tuple[str, Reply, Want]
OK = Want(200, relayed=True)
REFUSED = Want(401, NO_CREDENTIAL, challenge=True)
AMBIGUOUS = Want(400, closed=True)


def message(**parts: Any) -> str:
    return json.dumps(parts)


def framing(suite: Suite) -> Iterator[Case]:
    """Messages whose length two parsers would see differently."""
    good = json.dumps(call())
    hidden = json.dumps(call(arguments={"text": MARK}))
    auth = [("Authorization", f"Bearer {suite.token}")]
    second = head(suite.host, suite.path, auth + [("Content-Length", str(len(hidden)))]).decode() + hidden

    def one(fields: list[tuple[str, str]], body: str, *, replace: tuple[str, str] | None = None) -> Reply:
        data = head(suite.host, suite.path, auth + fields).decode() + body
        return suite.raw((data.replace(*replace, 1) if replace else data).encode("latin-1"))

    n = str(len(good))
    chunked = f"{len(good):x}\r\n{good}\r\n0\r\n\r\n"
    cl, te = ("Content-Length", n), ("Transfer-Encoding", "chunked")
    yield "Content-Length and Transfer-Encoding", one([cl, te], chunked + second), AMBIGUOUS
    yield "Transfer-Encoding and Content-Length", one([te, ("Content-Length", "4")], chunked + second), AMBIGUOUS
    yield "Content-Length 0 and Transfer-Encoding", one([("Content-Length", "0"), te], chunked + second), AMBIGUOUS
    yield "two lengths", one([cl, ("Content-Length", "3")], good + second), AMBIGUOUS
    yield "two lengths, the smaller first", one([("Content-Length", "3"), cl], good + second), AMBIGUOUS
    for value in (f"{n}, 3", f"+{n}", f"-{n}", f"0x{len(good):x}", f"{n} 3", "", "1e2", "99999999999999999999999", f"{n};"):
        yield f"Content-Length: {value[:12]!r}", one([("Content-Length", value)], good), AMBIGUOUS
    for value in ("xchunked", "identity", "chunked, identity", "identity, chunked", "gzip, chunked", "chunked, chunked",
                  ", chunked", "chunked;q=1", "\x0bchunked", "chunked\x00", "\"chunked\""):
        yield f"Transfer-Encoding: {value!r}", one([("Transfer-Encoding", value)], chunked + second), AMBIGUOUS
    yield "two Transfer-Encoding", one([te, ("Transfer-Encoding", "identity")], chunked + second), AMBIGUOUS
    yield "space before the colon of Transfer-Encoding", one([("Transfer-Encoding ", "chunked")], chunked), AMBIGUOUS
    yield "space before the colon of Content-Length", one([("Content-Length ", n)], good), AMBIGUOUS
    yield "folded Transfer-Encoding", one([("Transfer-Encoding", "\r\n chunked")], chunked), AMBIGUOUS
    yield "folded header", one([cl, ("X-Note", "a\r\n b")], good), AMBIGUOUS
    yield "header line without a colon", one([cl, ("X-Note", "a\r\nnonsense")], good), AMBIGUOUS
    yield "bare CR in a value", one([cl, ("X-Note", "a\rTransfer-Encoding: chunked")], good), AMBIGUOUS
    yield "NUL in a value", one([cl, ("X-Note", "a\x00b")], good), AMBIGUOUS
    yield "control character in a name", one([cl, ("X\x01Note", "a")], good), AMBIGUOUS
    for bad in ("0x5", "-5", "+5", "5 5", "fffffffffffffffff", "", "5\n", "g"):
        yield f"chunk size {bad!r}", one([te], f"{bad}\r\n{good}\r\n0\r\n\r\n"), Want((400, 0), closed=True)
    yield "a request behind an empty chunk size", one([te], "\r\n\r\n" + second), AMBIGUOUS
    yield "a request behind a body", one([cl], good + second), Want(200, closed=True, relayed=True)
    yield "chunk without its line end", one([te], f"{len(good):x}\r\n{good}XX0\r\n\r\n"), Want((400, 0), closed=True)
    yield "HTTP/1.0 with chunks", one([te], chunked, replace=("HTTP/1.1", "HTTP/1.0")), AMBIGUOUS
    yield "two Host headers", one([("Host", "evil.example"), ("Host", suite.host), cl], good), Want((400, 403))
    yield "no Host", suite.raw(f"POST {suite.path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode()), Want((400, 403))
    yield "absolute target of another host", one([cl], good, replace=(f"POST {suite.path}", f"POST http://evil.example{suite.path}")), Want((400, 403))
    yield "request line with too many words", one([cl], good, replace=(" HTTP/1.1", " x HTTP/1.1")), Want((400, 404))
    yield "HTTP/3.0", one([cl], good, replace=("HTTP/1.1", "HTTP/3.0")), Want((400, 505), closed=True)
    yield "unknown method", one([("Content-Length", "0")], "", replace=("POST", "BREW")), Want(405)
    yield "CONNECT", suite.raw(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"), Want((400, 403, 405))
    yield "HTTP/2 without TLS", suite.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Want((400, 0), closed=True)
    yield "a TLS handshake", suite.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200) + b"\r\n\r\n"), Want((400, 0), closed=True)
    # Bare LF ends lines for the parser that everybody around us uses as well; what matters is that nothing hides in it.
    yield "bare LF after the lengths", one([("X-Note", f"a\nContent-Length: 3"), cl], good + second), AMBIGUOUS
    yield "GET with a body that is a request", suite.raw(head(suite.host, suite.path, auth + [("Content-Length", str(len(second)))], "GET") + second.encode()), Want((400, 404, 405), closed=True, relayed=True)
    yield "DELETE with a body that is a request", suite.raw(head(suite.host, suite.path, auth + [("Content-Length", str(len(second)))], "DELETE") + second.encode()), Want((204, 400, 404), closed=True, relayed=True)
    many = [(f"X-Note-{i}", "a") for i in range(150)]
    yield "150 header fields", one([cl, *many], good), Want((400, 431), closed=True)
    yield "5,000 header fields", one([cl, *(many * 33)], good), Want((400, 431), closed=True)
    yield "a header of 40 KiB", one([cl, ("X-Note", "a" * 40_000)], good), Want((400, 431), closed=True)
    yield "a header of 2 MiB", one([cl, ("X-Note", "a" * 2 * MIB)], good), Want((400, 431, 0), closed=True)
    yield "a path of 100 KiB", one([cl], good, replace=(suite.path, "/" + "a" * 100_000)), Want((400, 404, 414, 431), closed=None)


def slow(suite: Suite) -> Iterator[Case]:
    """Messages that come a byte at a time."""
    auth = {"Authorization": f"Bearer {suite.token}"}
    body = json.dumps(call())
    full = head(suite.host, suite.path, auth | {"Content-Length": str(len(body))}) + body.encode()

    def drip(data: bytes, pause: float, first: int = 0) -> Reply:
        started = time.monotonic()
        connection = Connection(suite.address)
        connection.send(data[:first])
        connection.socket.settimeout(pause)
        for at in range(first, len(data)):
            if not connection.send(data[at : at + 1]):
                break
            try:
                chunk = connection.socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            connection.buffer += chunk
            break
        connection.socket.settimeout(10)
        reply = connection.settle(connection.reply())
        reply.seconds = time.monotonic() - started
        return reply

    slow_head = Want((408, 0), closed=True, seconds=suite.header_timeout + 2)
    slow_body = Want(408, TOO_SLOW, closed=True, seconds=suite.body_timeout + 2)
    dripped = [
        ("a header that drips", (full, 0.1), Want(408, closed=True, seconds=suite.header_timeout + 2)),
        ("a header that stops", (full[:40], 0.1, 40), slow_head),
        ("a connection that says nothing", (b"", 0.1), slow_head),
        ("a body that drips", (full, 0.1, len(full) - len(body)), slow_body),
        ("a body that stops", (full[:-5], 0.1, len(full) - 5), slow_body),
    ]
    with ThreadPoolExecutor() as pool:
        waiting = [(name, pool.submit(drip, *arguments), want) for name, arguments, want in dripped]
        for name, reply, want in waiting:
            yield name, reply.result(), want
    yield "a body in pieces of one byte, in time", drip(full, 0.001, len(full) - len(body)), OK
    pieces = b"".join(b"1\r\n%c\r\n" % c for c in body.encode()) + b"0\r\n\r\n"
    start = head(suite.host, suite.path, auth | {"Transfer-Encoding": "chunked"})
    yield "chunks of one byte", suite.raw(start + pieces), OK
    large = json.dumps(call(arguments={"text": "a" * 300_000})).encode()
    pieces = b"".join(b"1\r\n%c\r\n" % c for c in large) + b"0\r\n\r\n"
    yield "300,000 chunks of one byte", suite.raw(start + pieces), OK
    pieces = b"1;" + b"x" * 3 * MIB + b"\r\n{\r\n0\r\n\r\n"
    yield "a chunk extension of 3 MiB", suite.raw(start + pieces), Want((400, 408, 0), closed=True)
    pieces = f"{len(body):x}\r\n{body}\r\n0\r\n".encode() + b"X-Trailer: a\r\n" * 100_000 + b"\r\n"
    yield "100,000 trailers", suite.raw(start + pieces), Want((200, 400, 408, 0), relayed=True)


def large(suite: Suite) -> Iterator[Case]:
    """Bodies over the limit."""
    auth = {"Authorization": f"Bearer {suite.token}"}
    refused = Want(413, TOO_LARGE, closed=True)

    def flood(start: bytes, piece: bytes, count: int) -> Reply:
        connection = Connection(suite.address)
        connection.send(start)
        for _ in range(count):
            if not connection.send(piece):
                break
        return connection.settle(connection.reply())

    hundred = head(suite.host, suite.path, auth | {"Content-Length": str(100 * MIB)})
    yield "100 MB, declared", flood(hundred, b"", 0), refused
    yield "100 MB, declared and sent", flood(hundred, b" " * MIB, 100), refused
    expecting = head(suite.host, suite.path, auth | {"Content-Length": str(100 * MIB), "Expect": "100-continue"})
    yield "100 MB, asking first", flood(expecting, b"", 0), refused
    chunks = head(suite.host, suite.path, auth | {"Transfer-Encoding": "chunked"})
    yield "100 MB in chunks of 1 MiB", flood(chunks, b"100000\r\n" + b" " * MIB + b"\r\n", 100), refused
    yield "100 MB as one chunk", flood(chunks + b"6400000\r\n", b" " * MIB, 100), refused
    over = json.dumps(call(arguments={"text": "a" * 4 * MIB}))
    yield "just over the limit", suite.ask(over), refused
    under = json.dumps(call(arguments={"text": "a" * (4 * MIB - 1000)}))
    yield "just under the limit", suite.ask(under), OK
    for kind in ("gzip", "br", "deflate"):
        bomb = base64.b64decode("H4sIAAAAAAAAA+3BMQEAAADCoPVPbQ0PoAAAAAAAAAAAAAAAAAAAAIC3AYbSVKsAQAAA")
        yield f"a body in {kind}", suite.ask(bomb, {"Content-Encoding": kind}), Want(415, 41500)
    yield "another media type", suite.ask(json.dumps(call()), {"Content-Type": "text/plain"}), Want(415, 41500)


def json_texts(suite: Suite) -> Iterator[Case]:
    """Bodies that are not what they should be."""
    deep = 100_000
    bad = Want(400, INVALID)
    broken = Want(400, PARSE)

    def inside(text: str) -> str:
        return f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{text}}}}}'

    yield "arrays, 100,000 deep", suite.ask("[" * deep + "]" * deep), bad
    yield "arrays, 100,000 deep, never closed", suite.ask("[" * deep), bad
    yield "objects, 100,000 deep", suite.ask('{"a":' * deep + "1" + "}" * deep), bad
    yield "arguments, 100,000 deep", suite.ask(inside('{"a":' * deep + "1" + "}" * deep)), bad
    yield "a million brackets", suite.ask("[" * 1_000_000), bad
    good = inside("{}")
    yield "method twice", suite.ask(good.replace('"id"', '"method":"ping","id"')), bad
    yield "method twice, once escaped", suite.ask(good.replace('"id"', '"\\u006dethod":"ping","id"')), bad
    yield "params twice", suite.ask(good[:-1] + ',"params":{}}'), bad
    yield "name twice", suite.ask(good.replace('"name":"echo"', '"name":"echo","name":"delete"')), bad
    yield "name twice, once escaped", suite.ask(good.replace('"name":"echo"', '"name":"echo","n\\u0061me":"delete"')), bad
    yield "an argument twice", suite.ask(inside('{"path":"/srv","path":"/etc"}')), bad
    yield "an argument twice, once escaped", suite.ask(inside('{"path":"/srv","p\\u0061th":"/etc"}')), bad
    yield "a deep key twice", suite.ask(inside('{"a":[{"b":{"c":1,"d":2,"c":3}}]}')), bad
    yield "a key that differs in case", suite.ask(good.replace('"id"', '"Method":"ping","id"')), bad
    keys = ",".join(f'"k{i}":{i}' for i in range(200_000))
    yield "200,000 different keys", suite.ask(inside("{" + keys + "}")), OK
    yield "200,000 different keys and one twice", suite.ask(inside("{" + keys + ',"k7":0}')), bad
    for name, raw in {
        "a stray continuation byte": b"\x80",
        "an overlong slash": b"\xc0\xaf",
        "a surrogate": b"\xed\xa0\x80",
        "beyond Unicode": b"\xf4\x90\x80\x80",
        "a character cut short": b"\xe2\x82",
    }.items():
        yield f"UTF-8: {name}", suite.ask(inside('{"text":"~"}').encode().replace(b"~", raw)), broken
    yield "UTF-16", suite.ask(good.encode("utf-16")), broken
    yield "a byte order mark", suite.ask(b"\xef\xbb\xbf" + good.encode()), broken
    yield "a lone surrogate escape", suite.ask(inside('{"text":"\\ud800"}')), broken
    yield "no body", suite.ask(""), broken
    yield "not JSON", suite.ask("hello"), broken
    yield "something after the message", suite.ask(good + good), broken
    yield "NaN", suite.ask(inside('{"n":NaN}')), broken
    yield "a control character in a string", suite.ask(inside('{"text":"\x01"}')), broken
    yield "a comment", suite.ask(good[:-1] + "/* */}"), broken
    for text in ("null", "1", '"x"', "[]", "[1]", "{}"):
        yield f"the message {text}", suite.ask(text), bad
    for name, number in {"null": "null", "1.5": "1.5", "an object": "{}", "a list": "[]", "true": "true"}.items():
        yield f"the id {name}", suite.ask(good.replace('"id":1', f'"id":{number}')), bad
    yield "an id of 1 MiB", suite.ask(message(jsonrpc="2.0", id="a" * MIB, method="ping")), bad
    yield "an id of 100,000 digits", suite.ask(good.replace('"id":1', '"id":' + "9" * 100_000)), bad
    yield "a number of a million digits", suite.ask(inside('{"n":' + "9" * 1_000_000 + "}")), OK
    yield "a method of 1 MiB", suite.ask(message(jsonrpc="2.0", id=1, method="a" * MIB)), Want((200, 400))
    yield "a tool name of 1 MiB", suite.ask(message(**call("a" * MIB))), Want(200, PARAMS)
    yield "jsonrpc 1.0", suite.ask(good.replace("2.0", "1.0")), bad
    yield "a batch of 10,000", suite.ask("[" + ",".join([good] * 10_000) + "]"), bad
    yield "an empty batch", suite.ask("[]"), bad


def headers(suite: Suite) -> Iterator[Case]:
    """Headers that say other than the body, and headers that lie about the caller."""
    body = json.dumps(call(modern=True))
    mismatch = Want(400, MISMATCH)
    good = modern_headers()
    yield "Mcp-Method of another method", suite.ask(body, good | {"Mcp-Method": "tools/list"}), mismatch
    yield "Mcp-Name of another tool", suite.ask(body, good | {"Mcp-Name": "safe"}), mismatch
    yield "Mcp-Name in a case of its own", suite.ask(body, good | {"Mcp-Name": "ECHO"}), mismatch
    yield "no Mcp-Method", suite.ask(body, {k: v for k, v in good.items() if k != "Mcp-Method"}), mismatch
    yield "no Mcp-Name", suite.ask(body, {k: v for k, v in good.items() if k != "Mcp-Name"}), mismatch
    yield "Mcp-Name twice", suite.ask(body, [*good.items(), ("Mcp-Name", "safe")]), mismatch
    yield "Mcp-Name: broken sentinel", suite.ask(body, good | {"Mcp-Name": "=?base64?!!!?="}), mismatch
    yield "Mcp-Name: sentinel of another name", suite.ask(body, good | {"Mcp-Name": "=?base64?c2FmZQ==?="}), mismatch
    yield "version header of another revision", suite.ask(body, good | {"MCP-Protocol-Version": "2025-11-25"}), mismatch
    future = json.dumps(call(modern=True)).replace("2026-07-28", "2099-01-01")
    yield "a revision of the future", suite.ask(future, good | {"MCP-Protocol-Version": "2099-01-01"}), Want(400, VERSION)
    yield "a revision that is none", suite.ask(json.dumps(call()), {"MCP-Protocol-Version": "latest"}), Want(400, INVALID)
    yield "a foreign Host", suite.ask(body, good | {"Host": "evil.example"}), Want(403, 40300)
    yield "a Host that looks like ours", suite.ask(body, good | {"Host": f"{suite.host}.evil.example"}), Want(403, 40300)
    yield "a foreign Origin", suite.ask(body, good | {"Origin": "https://evil.example"}), Want(403, 40300)
    yield "the Origin null", suite.ask(body, good | {"Origin": "null"}), Want(403, 40300)
    yield "a path that goes up", suite.ask(body, good, path="/mcp/../mcp/hostile"), Want((400, 404))
    yield "a path in other letters", suite.ask(body, good, path="/mcp/%68ostile"), Want((400, 404))
    suite.upstream.seen.take()
    claims = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-User": "root",
        "X-Tollgate-Principal": "root",
        "X-Auth-Request-Email": "root@example.com",
        "X-Real-IP": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
        "Cookie": "session=1",
        "Proxy-Authorization": "Basic cm9vdDpyb290",
        "Connection": "X-Team",
        "X-Team": "red",
        "TE": "trailers",
    }
    reply = suite.ask(body, good | claims)
    arrived = suite.upstream.seen.take()
    values = [f"{name}: {value}" for request in arrived for name, value in request.headers]
    lies = [v for v in values if "root" in v or "10.0.0.1" in v or suite.token in v or v.lower().startswith(("cookie", "x-team", "te:"))]
    if lies or len(arrived) != 1:
        reply.status, reply.body = -1, f"the server was told {lies or len(arrived)}".encode()
    yield "claims about who calls do not reach the server", reply, OK


def ids(suite: Suite) -> Iterator[Case]:
    """Session ids, states and task ids that were not issued to the caller."""
    gone = Want(404, NO_SESSION)
    mine = suite.session(suite.token)
    call_it = json.dumps(call())
    yield "the caller's own session", suite.ask(call_it, {"Mcp-Session-Id": mine}), OK
    forged = {
        "made up": "0123456789abcdef",
        "empty": "",
        "a UUID": "5f0c1f2e-6f0a-4a3e-9f5e-0d9d6f0c1f2e",
        "cut short": mine[:-1],
        "made longer": mine + "A",
        "in another case": mine.swapcase(),
        "all zeros": "A" * len(mine),
        "20 KiB of it": (mine * 600)[:20_000],
        "not ASCII": "séance",
        "a path": "../../etc/passwd",
    }
    for name, value in forged.items():
        yield f"a session id {name}", suite.ask(call_it, {"Mcp-Session-Id": value}), gone
    changed = [mine[:at] + ("A" if mine[at] != "A" else "B") + mine[at + 1 :] for at in range(len(mine) - 1)]
    replies = [suite.ask(call_it, {"Mcp-Session-Id": value}) for value in changed]
    wrong = next((reply for reply in replies if reply.status != 404), replies[0])
    yield f"a session id with one of its {len(changed)} characters changed", wrong, gone
    yield "two session ids", suite.ask(call_it, [("Mcp-Session-Id", mine), ("Mcp-Session-Id", mine)]), gone
    yield "somebody else's session", suite.ask(call_it, {"Mcp-Session-Id": mine}, token=suite.other_token), gone
    yield "somebody else's session, with an API key", suite.ask(call_it, {"Mcp-Session-Id": mine}, token=suite.key), gone
    yield "a session of another route", suite.ask(call_it, {"Mcp-Session-Id": mine}, path="/mcp/other"), gone
    yield "somebody else's stream", suite.ask("", {"Mcp-Session-Id": mine}, method="GET", token=suite.other_token), gone
    yield "ending somebody else's session", suite.ask("", {"Mcp-Session-Id": mine}, method="DELETE", token=suite.other_token), gone
    yield "it is still there", suite.ask(call_it, {"Mcp-Session-Id": mine}), OK
    yield "ending the own session", suite.ask("", {"Mcp-Session-Id": mine}, method="DELETE"), Want((200, 202, 204), relayed=True)
    yield "a session after its end", suite.ask(call_it, {"Mcp-Session-Id": mine}), gone

    asked = suite.ask(json.dumps(call("ask", modern=True)), modern_headers(name="ask"))
    state = asked.message.get("result", {}).get("requestState", "")
    if not state or "upstream" in state:
        asked.status, asked.body = -1, b"the state is not sealed"
    yield "a server's state is sealed", asked, OK
    bad = Want(400, PARAMS)

    def hand_back(value: str, name: str = "ask", token: str | None = None, path: str | None = None) -> Reply:
        body = json.dumps(call(name, modern=True, requestState=value, inputResponses={}))
        return suite.ask(body, modern_headers(name=name), token=token, path=path)

    yield "the caller's own state", hand_back(state), OK
    yield "somebody else's state", hand_back(state, token=suite.other_token), bad
    yield "a state for another tool", hand_back(state, "echo"), bad
    yield "a state of another route", hand_back(state, path="/mcp/other"), bad
    yield "a made-up state", hand_back("eyJhIjoxfQ"), bad
    yield "the server's own state", hand_back("state-of-the-upstream"), bad
    yield "a state with a character changed", hand_back(state[:20] + ("A" if state[20] != "A" else "B") + state[21:]), bad
    yield "a state of 1 MiB", hand_back("A" * MIB), bad
    yield "a session id as a state", hand_back(mine), bad
    listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen"}
    task = json.dumps(listen | {"params": {"notifications": {"taskIds": ["made-up"]}, "_meta": META}})
    yield "a made-up task", suite.ask(task, modern_headers("subscriptions/listen", None)), bad


def credentials(suite: Suite) -> Iterator[Case]:
    """Tokens and keys that prove nothing."""
    body = json.dumps(call())
    issuer, aud = suite.issuer, suite.audience
    now = int(time.time())

    def token(value: str) -> Reply:
        return suite.ask(body, token=value)

    def unsigned(header: dict[str, Any], signature: bytes = b"", claims: dict[str, Any] | None = None) -> str:
        return f"{encode(header)}.{encode(claims or issuer.claims(aud, groups=['testers']))}.{b64(signature)}"

    yield "no credential", suite.ask(body, token=""), REFUSED
    for alg in ("none", "None", "NONE", "nOnE", ""):
        yield f"alg={alg or 'nothing'}", token(unsigned({"alg": alg, "typ": "JWT"})), REFUSED
    yield "alg=none with a good signature", token(unsigned({"alg": "none"}) + suite.token.rsplit(".", 1)[1]), REFUSED
    public = issuer.jwks.read_bytes()
    parts = unsigned({"alg": "HS256", "kid": "test"}).rsplit(".", 1)[0]
    mac = hmac.new(public, parts.encode(), hashlib.sha256).digest()
    yield "HS256 with the public key as its secret", token(f"{parts}.{b64(mac)}"), REFUSED
    good = issuer.claims(aud, groups=["testers"])
    yield "expired", token(issuer.sign(good | {"iat": now - 7200, "exp": now - 3600})), REFUSED
    yield "expired long ago, never issued", token(issuer.sign({"iss": good["iss"], "aud": aud, "sub": "x", "exp": 1})), REFUSED
    yield "not valid yet", token(issuer.sign(good | {"nbf": now + 3600})), REFUSED
    yield "issued in the future", token(issuer.sign(good | {"iat": now + 86_400})), REFUSED
    yield "without an end", token(issuer.sign({k: v for k, v in good.items() if k != "exp"})), REFUSED
    yield "an end that is a text", token(issuer.sign(good | {"exp": "tomorrow"})), REFUSED
    yield "for another audience", token(issuer.sign(good | {"aud": "https://elsewhere.example"})), REFUSED
    yield "for another route", token(issuer.sign(good | {"aud": aud.replace("hostile", "other")})), REFUSED
    yield "for our host without the path", token(issuer.sign(good | {"aud": f"http://{suite.host}"})), REFUSED
    yield "for an audience that begins like ours", token(issuer.sign(good | {"aud": aud + "/../x"})), REFUSED
    yield "without an audience", token(issuer.sign({k: v for k, v in good.items() if k != "aud"})), REFUSED
    yield "of another issuer", token(issuer.sign(good | {"iss": "https://evil.example"})), REFUSED
    yield "of an issuer that begins like ours", token(issuer.sign(good | {"iss": good["iss"] + ".evil.example"})), REFUSED
    yield "signed with another key", token(suite.stranger.sign(good)), REFUSED
    yield "with an unknown key id", token(issuer.sign(good, {"kid": "../../etc/passwd"})), REFUSED
    yield "with a key of its own", token(suite.stranger.sign(good, {"jwk": json.loads(public)["keys"][0]})), REFUSED
    yield "with a place to get its key", token(suite.stranger.sign(good, {"jku": "http://127.0.0.1:9/keys"})), REFUSED
    yield "with an extension that must be understood", token(issuer.sign(good, {"crit": ["b64"], "b64": False})), REFUSED
    header, claims, signature = suite.token.split(".")
    other = encode(good | {"sub": "root"})
    yield "claims exchanged", token(f"{header}.{other}.{signature}"), REFUSED
    yield "signature cut short", token(f"{header}.{claims}.{signature[:-10]}"), REFUSED
    yield "signature empty", token(f"{header}.{claims}."), REFUSED
    yield "four parts", token(suite.token + ".x"), REFUSED
    yield "five parts", token("a.b.c.d.e"), REFUSED
    yield "not a token", token("hello"), REFUSED
    deep = b64(b'{"a":' * 1000 + b"1" + b"}" * 1000)
    yield "claims nested 1,000 deep", token(f"{header}.{deep}.{signature}"), REFUSED
    twice = b64(json.dumps(good)[:-1].encode() + b',"sub":"root"}')
    yield "a claim twice, not signed", token(f"{header}.{twice}.{signature}"), REFUSED
    yield "revoked", token(issuer.sign(good | {"jti": "stolen"})), REFUSED
    nobody = Want(403, 40300)
    yield "good, but of nobody with a role", token(issuer.sign(issuer.claims(aud))), nobody
    yield "20 KiB", token("a" * 20_000), Want(400, NO_CREDENTIAL)
    yield "empty", suite.ask(body, {"Authorization": "Bearer "}, token=""), Want(400, NO_CREDENTIAL)
    pair = [("Authorization", f"Bearer {suite.token}")] * 2
    yield "two tokens", suite.ask(body, pair, token=""), Want(400, NO_CREDENTIAL)
    both = {"Authorization": f"Bearer {suite.token}", "X-Api-Key": suite.key}
    yield "a token and a key", suite.ask(body, both, token=""), Want(400, NO_CREDENTIAL)
    yield "Basic", suite.ask(body, {"Authorization": "Basic cm9vdDpyb290"}, token=""), REFUSED
    yield "in the query", suite.ask(body, token="", path=f"{suite.path}?access_token={suite.token}"), REFUSED
    yield "in a cookie", suite.ask(body, {"Cookie": f"access_token={suite.token}"}, token=""), REFUSED
    yield "an API key", suite.ask(body, token=suite.key), OK
    for name, key in {
        "with a character changed": suite.key[:-1] + ("A" if suite.key[-1] != "A" else "B"),
        "cut short": suite.key[:-1],
        "of nobody": "tg_AAAAAAAAAAAA_" + "A" * (len(suite.key) - 16),
        "without its secret": suite.key[:16],
        "that has expired": suite.expired_key,
    }.items():
        yield f"an API key {name}", token(key), REFUSED


GROUPS = {
    "framing": framing,
    "slow": slow,
    "large": large,
    "json": json_texts,
    "headers": headers,
    "ids": ids,
    "credentials": credentials,
}
