"""HTTP/1.1 over a plain socket, byte by byte: a client that would not send nonsense is no use here."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

# Addresses of this machine to come from, so that what one test does is not held against the next.
_sources = (f"127.{b}.{c}.{d}" for b, c, d in itertools.product(range(1, 200), range(256), range(1, 255)))
LINGER = 3.0
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "hostile", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
}


def fresh_source() -> str:
    return next(_sources)


@dataclass
class Reply:
    """One response, or what came instead: status 0 when the connection was closed without one."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    # Whether the gateway closed the connection after it, and what came before it did.
    closed: bool = False
    rest: bytes = b""
    seconds: float = 0.0
    watcher: threading.Thread | None = None

    def ended(self) -> None:
        """Waits until all is known of what came after it."""
        if self.watcher:
            self.watcher.join(2 * LINGER)

    @property
    def message(self) -> dict[str, Any]:
        text = self.body
        if "text/event-stream" in self.headers.get("content-type", ""):
            text = b"".join(line[5:] for line in text.splitlines() if line.startswith(b"data:"))
        try:
            parsed = json.loads(text)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def code(self) -> int | None:
        return self.message.get("error", {}).get("code")


class Connection:
    """One connection to the gateway."""

    def __init__(self, address: tuple[str, int], source: str | None = None, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(address, timeout, (source or fresh_source(), 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data: bytes) -> bool:
        """False if the gateway has closed already, which is its right while it refuses a body."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except OSError:
            return False
        self.buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self.buffer:
            if not self._more():
                return None
        found, self.buffer = self.buffer.split(mark, 1)
        return found

    def _take(self, length: int) -> bytes:
        while len(self.buffer) < length and self._more():
            pass
        found, self.buffer = self.buffer[:length], self.buffer[length:]
        return found

    def reply(self) -> Reply:
        """Reads one response to its end; interim responses are skipped."""
        started = time.monotonic()
        while True:
            head = self._until(b"\r\n\r\n")
            if head is None:
                return Reply(closed=True, rest=self.buffer, seconds=time.monotonic() - started)
            first, *lines = head.decode("latin-1").split("\r\n")
            status = int(first.split(" ")[1])
            if status >= 200:
                break
        reply = Reply(status)
        for line in lines:
            name, _, value = line.partition(":")
            reply.headers[name.strip().lower()] = value.strip()
        if status not in (202, 204) or "content-length" in reply.headers:
            if "chunked" in reply.headers.get("transfer-encoding", ""):
                reply.body = self._chunks()
            else:
                reply.body = self._take(int(reply.headers.get("content-length", "0")))
        reply.seconds = time.monotonic() - started
        return reply

    def _chunks(self) -> bytes:
        body = b""
        while True:
            line = self._until(b"\r\n")
            size = int(line, 16) if line else 0
            if size:
                body += self._take(size)
            if self._until(b"\r\n") is None or size == 0:
                return body

    def settle(self, reply: Reply, wait: float = 0.05) -> Reply:
        """Waits a little for what must not come any more: another response. Closes the connection then.

        An answer that says `Connection: close` is held to it, but in the background, until `Reply.ended`: the gateway
        reads on for up to two seconds first, so that the client gets the answer and no reset.
        """
        if reply.headers.get("connection") == "close":
            reply.watcher = threading.Thread(target=self._listen, args=(reply, LINGER), daemon=True)
            reply.watcher.start()
        else:
            self._listen(reply, wait)
        return reply

    def _listen(self, reply: Reply, wait: float) -> None:
        until = time.monotonic() + wait
        try:
            while (left := until - time.monotonic()) > 0 and not reply.closed:
                self.socket.settimeout(left)
                data = self.socket.recv(65536)
                self.buffer += data
                reply.closed = not data
        except TimeoutError:
            pass
        except OSError:
            reply.closed = True
        reply.rest = self.buffer
        self.socket.close()


def call(
    name: str = "echo", arguments: Any = None, *, modern: bool = False, number: Any = 1, **params: Any
) -> dict[str, Any]:
    """A `tools/call`."""
    params = {"name": name, "arguments": arguments or {}} | params
    if modern:
        params["_meta"] = META
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def modern_headers(method: str = "tools/call", name: str | None = "echo") -> dict[str, str]:
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
    return headers | ({"Mcp-Name": name} if name else {})


def head(host: str, path: str, fields: dict[str, str] | list[tuple[str, str]], method: str = "POST") -> bytes:
    """A request head with `Host` and what a well-behaved client sends besides."""
    pairs = list(fields.items()) if isinstance(fields, dict) else fields
    usual = [("Host", host), ("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
    given = {name.lower() for name, _ in pairs}
    lines = [f"{n}: {v}" for n, v in [(n, v) for n, v in usual if n.lower() not in given] + pairs]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("utf-8", "surrogateescape")
