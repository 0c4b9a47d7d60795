"""The gateway under attack, with what is needed to talk to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from upstream import Upstream
from wire import Connection, Reply, head

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))
from issuer import Issuer, b64, encode  # noqa: E402  (its folder has just become known)

__all__ = ["Suite", "b64", "encode"]

CONFIG = """
version: 1
listeners:
  mcp:
    limits:
      header_timeout: 1500ms
      body_timeout: 1500ms
      keepalive_timeout: 30s
      write_timeout: 5s
      max_connections: {connections}
      max_connections_per_address: {per_address}
servers:
  - name: upstream
    http: {{ targets: ["{upstream}"] }}
routes:
  - {{ name: hostile, servers: [upstream], limits: [by_role], policy: testers }}
  - {{ name: other, servers: [upstream], limits: [by_role], policy: testers, audiences: ["{audience}"] }}
limits:
  - {{ name: by_role, key: principal, per_role: {{ developer: 100000/s }}, burst: 10 }}
policies:
  - name: testers
    rules:
      - allow: {{ roles: [developer], tools: [echo, ask] }}
      - allow: {{ roles: [developer], methods: [subscriptions/listen] }}
identity:
  api_keys: {{ file: {folder}/keys.jsonl }}
  revocations: {{ file: {folder}/revocations.jsonl }}
  issuers:
    - name: test
      issuer: https://issuer.test.invalid
      jwks: {{ file: {folder}/issuer/jwks.json }}
      algorithms: [RS256]
      leeway: 5s
      roles: {{ claim: groups, map: {{ testers: developer }}, default: none }}
"""


class Suite:
    """One running gateway."""

    header_timeout = 1.5
    body_timeout = 1.5
    path = "/mcp/hostile"

    def __init__(self, binary: Path, folder: Path, connections: int, per_address: int) -> None:
        self.folder = folder
        self.connections = connections
        self.per_address = per_address
        self.upstream = Upstream()
        self.issuer = Issuer(folder / "issuer")
        self.issuer.make()
        self.stranger = Issuer(folder / "stranger")
        self.stranger.make()
        self.key, record = self._key(binary)
        self.expired_key, expired = self._key(binary)
        expired["expires"] = "2020-01-01T00:00:00Z"
        (folder / "keys.jsonl").write_text(f"{json.dumps(record)}\n{json.dumps(expired)}\n")
        (folder / "revocations.jsonl").write_text('{"jti":"stolen"}\n')
        # The audience of the first route is an additional one of the second, so that sessions can be tried there.
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.address = ("127.0.0.1", self.port)
        self.audience = f"http://{self.host}{self.path}"
        config = folder / "config.yaml"
        config.write_text(
            CONFIG.format(
                connections=connections,
                per_address=per_address,
                upstream=self.upstream.url,
                folder=folder,
                audience=self.audience,
            )
        )
        self.token = self.issuer.token(self.audience, groups=["testers"], sub="alice")
        self.other_token = self.issuer.token(self.audience, groups=["testers"], sub="mallory")
        self.process = self._start(binary, config)

    def _key(self, binary: Path) -> tuple[str, dict[str, Any]]:
        command = [str(binary), "keys", "new", "--role", "developer"]
        key, record = subprocess.run(command, capture_output=True, check=True, timeout=20, text=True).stdout.splitlines()
        return key, json.loads(record)

    def _start(self, binary: Path, config: Path) -> subprocess.Popen[bytes]:
        log = self.folder / "gateway.log"
        command = [str(binary), "serve", "--config", str(config), "--listen", self.host, "--admin", "127.0.0.1:0"]
        command += ["--data-dir", str(self.folder / "data")]
        with log.open("wb") as errors, (self.folder / "access.log").open("wb") as access:
            process = subprocess.Popen(command, stdout=access, stderr=errors, env=os.environ | {"NO_COLOR": "1"})
        try:
            for _ in range(400):
                found = re.search(r"admin=([0-9.:]+)", log.read_text())
                if found and self._ready(found[1]):
                    return process
                if process.poll() is not None:
                    break
                time.sleep(0.05)
        except BaseException:
            process.kill()
            raise
        process.kill()
        raise SystemExit(f"the gateway did not start:\n{log.read_text()}")

    def _ready(self, admin: str) -> bool:
        self.admin = f"http://{admin}"
        try:
            return urllib.request.urlopen(f"{self.admin}/readyz", timeout=2).status == 200
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def rss(self) -> int:
        """Resident memory in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return -1

    def raw(self, data: bytes, source: str | None = None) -> Reply:
        """Sends exactly these bytes on a connection of their own."""
        connection = Connection(self.address, source)
        connection.send(data)
        return connection.settle(connection.reply())

    def ask(
        self,
        body: str | bytes,
        fields: dict[str, str] | list[tuple[str, str]] | None = None,
        *,
        token: str | None = None,
        path: str | None = None,
        method: str = "POST",
    ) -> Reply:
        """A request that is well-formed as HTTP. An empty token sends none."""
        pairs = list(fields.items()) if isinstance(fields, dict) else list(fields or [])
        if token != "":
            pairs.append(("Authorization", f"Bearer {token or self.token}"))
        data = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
        pairs.append(("Content-Length", str(len(data))))
        connection = Connection(self.address)
        connection.send(head(self.host, path or self.path, pairs, method) + data)
        return connection.settle(connection.reply(), 0.002)

    def session(self, token: str) -> str:
        """A new legacy session of whoever has the token."""
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "hostile", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        return self.ask(body, token=token).headers["mcp-session-id"]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
