"""The MCP server behind the gateway in the hostile tests: it speaks both eras and remembers all that reaches it."""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
VERSIONS = ["2026-07-28", "2025-11-25"]
# A state that only its owner may hand back, so it must never be seen outside in the clear.
STATE = "state-of-the-upstream"
KEEP = 1000
# In the calls that show that good callers are served; they are not remembered.
GOOD = "a good caller"


@dataclass
class Arrived:
    """One request as it came from the gateway."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Seen:
    """What arrived since the last look, without the gateway's own probes and the calls of good callers."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: list[Arrived] = field(default_factory=list)

    def note(self, arrived: Arrived) -> None:
        with self.lock:
            if len(self.requests) < KEEP and GOOD.encode() not in arrived.body:
                self.requests.append(arrived)

    def take(self) -> list[Arrived]:
        with self.lock:
            requests, self.requests = self.requests, []
            return requests


class Handler(BaseHTTPRequestHandler):
    """Answers just enough of the protocol."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True
    server: "Upstream"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.note(b"")
        self.send_response(405)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_DELETE(self) -> None:
        self.note(b"")
        self.server.sessions.discard(self.headers.get("mcp-session-id", ""))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        # Python has a limit on the digits of an integer; JSON has none.
        message = json.loads(body, parse_int=lambda digits: int(digits) if len(digits) < 20 else 0)
        self.note(body)
        if "id" not in message or "method" not in message:
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        params = message.get("params") or {}
        session = None
        if message["method"] == "initialize":
            session = secrets.token_hex(16)
            self.server.sessions.add(session)
        self.reply(message["id"], self.result(message["method"], params), session)

    def result(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        about = {"name": "hostile-upstream", "version": "1"}
        if method == "server/discover":
            return {
                "resultType": "complete",
                "supportedVersions": VERSIONS,
                "capabilities": {"tools": {}},
                "serverInfo": about,
                "ttlMs": 60000,
                "cacheScope": "public",
            }
        if method == "initialize":
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": about}
        modern = VERSION_KEY in params.get("_meta", {})
        kind = {"resultType": "complete"} if modern else {}
        if method == "tools/list":
            return kind | {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        if method == "tools/call" and params.get("name") == "ask" and "requestState" not in params:
            return {"resultType": "input_required", "requestState": STATE, "inputRequests": {}}
        if method == "tools/call":
            return kind | {"content": [{"type": "text", "text": "done"}], "isError": False}
        return kind

    def reply(self, number: Any, result: dict[str, Any], session: str | None) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if session:
            self.send_header("mcp-session-id", session)
        self.end_headers()
        self.wfile.write(body)

    def note(self, body: bytes) -> None:
        # Probes carry no request id; everything that the gateway relays does.
        if self.headers.get("x-request-id"):
            self.server.seen.note(Arrived(self.command, self.path, self.headers.items(), body))


class Upstream(ThreadingHTTPServer):
    """Serves on a free loopback port from a thread of its own."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = Seen()
        self.sessions: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/mcp"

    def handle_error(self, *_: object) -> None:
        """A broken connection is no news here."""
