#!/usr/bin/env python3
"""Starts what deploy/compose describes, as it stands, without a container engine, and uses it as a first start does.

    tests/tools/install.sh deploy          # once
    .tools/deploy/bin/python tests/deploy/topology.py        # TOLLGATE=path/to/tollgate, default target/debug/tollgate

Each service is a process in namespaces of its own (boxes.py); configuration, secrets, certificates, commands and health checks
are those of the compose file. PostgreSQL, Redis for Valkey, HAProxy and Prometheus are the programs of this machine; a small
MCP server stands in for `everything`. Where namespaces cannot be made it says so and ends with 0; with --strict it fails.
"""

import argparse
import json
import os
import pathlib
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/hostile"), str(ROOT / "tests/deploy")]

import yaml  # noqa: E402

import boxes  # noqa: E402
import upstream  # noqa: E402

TOOLS = ROOT / ".tools"
NAMES = ["control", "tollgate-1", "tollgate-2", "first-document", "postgres", "valkey", "balancer", "everything", "prometheus"]
DATA = ["tollgate-1", "tollgate-2"]
LIMIT = 200         # of a developer, a minute: first.yaml


def http(method, url, token=None, body=None, headers=None):
    """Status, headers, body."""
    given = {"accept": "application/json, text/event-stream", **(headers or {})}
    if token:
        given["authorization"] = f"Bearer {token}"
    if body is not None:
        given["content-type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, given, method=method), timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def eventually(what, attempt, patience=20):
    until = time.monotonic() + patience
    while True:
        found = attempt()
        if found or time.monotonic() > until:
            assert found, f"not within {patience} s: {what}"
            return found
        time.sleep(0.1)


def say(text):
    print(f"ok       {text}", flush=True)


class Caller:
    """An MCP client of one replica, or of the balancer."""

    def __init__(self, place, key):
        self.url, self.key, self.session = f"http://{place}:8080/mcp/everything", key, None

    def send(self, method, params=None, session=None):
        headers = {"mcp-session-id": session or self.session} if session or self.session else {}
        headers["host"] = "127.0.0.1:8080"      # of public_url
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return http("POST", self.url, self.key, body, headers)

    def initialize(self):
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "topology", "version": "1"}}
        status, headers, text = self.send("initialize", params)
        assert status == 200, f"{self.url}: {status} {text}"
        self.session = headers["mcp-session-id"]

    def call(self, session=None):
        status, _, text = self.send("tools/call", {"name": "echo", "arguments": {}}, session)
        assert status in (200, 404, 429), f"{self.url}: {status} {text}"
        assert status != 200 or "done" in text, text
        return status


class Topology:
    def __init__(self, folder, binary, names, aliases=None):
        self.folder, self.binary, self.place = folder, binary, "control"
        shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("secrets", "__pycache__"))
        self.secrets = folder / "deploy/compose/secrets"
        subprocess.run([folder / "deploy/compose/secrets.sh"], check=True, capture_output=True)
        parsed = subprocess.run([TOOLS / "deploy/bin/docker-compose", "-f", folder / "deploy/compose/compose.yaml", "config"],
                                check=True, capture_output=True, text=True)
        image = (ROOT / "deploy/Dockerfile").read_text()
        compose = yaml.safe_load(parsed.stdout)
        for service in compose["services"].values():
            if service["image"].startswith("tollgate:"):
                service["command"] = json.loads(re.search(r"^ENTRYPOINT (.*)", image, re.M)[1]) + service["command"]
                service["environment"].update(re.findall(r"(TOLLGATE_\w+)=(\S+)", image))
        self.boxes = boxes.Boxes(compose, folder, names, aliases)

    def secret(self, name):
        return (self.secrets / name).read_text().strip()

    def tollgate(self, name):
        self.boxes.start(name, {"tollgate": self.binary, "tollgate-start": self.folder / "deploy/systemd/tollgate-start"})

    def api(self, method, path, body=None):
        status, _, text = http(method, f"http://{self.place}:9090/api/v1{path}", self.secret("admin_token"), body)
        assert status < 300, f"{method} {path}: {status} {text}"
        return json.loads(text) if text else None

    def cli(self, *words):
        token = ["--token-file", "/run/secrets/admin_token"]
        return self.boxes.inside("control", "/usr/local/bin/tollgate", *words, *token)

    def metric(self, place, name):
        status, _, text = http("GET", f"http://{place}:9091/metrics", self.secret("metrics_token"))
        assert status == 200, f"{place}: {status}"
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    # ---- the start ------------------------------------------------------------------------------------------------------

    def postgres(self):
        """What the image's entry point does: a cluster with the superuser's password, then the script, once."""
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
        programs = {p.name: p for p in found[-1].iterdir() if p.name in ("initdb", "postgres", "psql", "pg_isready")}
        user = next(pwd.getpwnam(n) for n in ("postgres", "nobody") if n in {u.pw_name for u in pwd.getpwall()})
        bin = found[-1]
        begin = (f"export PGDATA=/var/lib/postgresql/data; {bin}/initdb -U postgres --auth-local=trust "
                 "--auth-host=scram-sha-256 --pwfile=/run/secrets/postgres_password $POSTGRES_INITDB_ARGS >/dev/null; "
                 "echo 'host all all all scram-sha-256' >>$PGDATA/pg_hba.conf; "
                 f"exec {bin}/postgres -k /tmp -c listen_addresses='*'")
        self.boxes.start("postgres", {"pg_isready": programs["pg_isready"], "psql": programs["psql"]},
                         ["sh", "-ec", begin], (user.pw_uid, user.pw_gid))
        ready = ("sh", "-c", "pg_isready --quiet --host=127.0.0.1")
        eventually("PostgreSQL answers", lambda: self.boxes.inside("postgres", *ready).returncode == 0, 60)
        done = self.boxes.inside("postgres", "sh", "/docker-entrypoint-initdb.d/tollgate.sh", more=["PGHOST=/tmp"])
        assert done.returncode == 0, done.stderr
        self.boxes.healthy("postgres")
        say("postgres: initialised with its script, healthy")

    def valkey(self):
        server, client = shutil.which("valkey-server") or "/usr/bin/redis-server", shutil.which("valkey-cli") or "/usr/bin/redis-cli"
        self.boxes.start("valkey", {"valkey-server": server, "valkey-cli": client}, owner=(999, 1000))
        self.boxes.healthy("valkey")

    def everything(self):
        """On the bridge, from this process: nothing of the gateway is in it."""
        boxes.Boxes.sh(f"ip address add {self.boxes.addresses['everything']}/24 dev bridge")

        class Server(upstream.Upstream):
            def __init__(self, place):
                upstream.ThreadingHTTPServer.__init__(self, place, upstream.Handler)
                self.seen, self.sessions = upstream.Seen(), set()
                threading.Thread(target=self.serve_forever, daemon=True).start()

        self.server = Server((self.boxes.addresses["everything"], 3001))

    def start(self):
        self.everything()
        self.postgres()
        self.valkey()
        refused = self.boxes.inside("valkey", "valkey-cli", "ping")
        assert "NOAUTH" in refused.stdout + refused.stderr, refused
        listed = self.boxes.inside("valkey", "sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '").stdout
        assert self.secret("valkey_password") not in listed, "the password is in the list of processes"
        say("valkey: healthy, wants its password, which no list of processes shows")
        for name in ["control", *DATA]:
            self.tollgate(name)
        for name in ["control", *DATA]:
            self.boxes.healthy(name)
        say("control, tollgate-1, tollgate-2: healthy with an empty store")
        first = self.boxes.start("first-document", {"tollgate": self.binary})
        assert first.wait(30) == 0, self.boxes.log("first-document")
        again = self.boxes.start("first-document", {"tollgate": self.binary})
        assert again.wait(30) == 3, self.boxes.log("first-document")
        said = self.boxes.log("first-document").strip().splitlines()
        say(f"first-document: {said[0]}; a second time it ends with 3: {said[-1]}")
        self.boxes.running.pop("first-document")
        status = eventually("all serve it", lambda: (s := self.cli("status")).returncode == 0 and "3 live" in s.stdout and s)
        say("tollgate status: " + " | ".join(line.strip() for line in status.stdout.splitlines()))

    # ---- the use --------------------------------------------------------------------------------------------------------

    def call(self):
        made = self.api("POST", "/tenants/default/api-keys", {"roles": ["developer"], "note": "topology"})
        self.key = made["key"]
        callers = [Caller(place, self.key) for place in DATA]
        for caller in callers:
            refused = Caller("tollgate-1", "tg_wrong").send("ping")
            assert refused[0] == 401, refused
            eventually("the key is known", lambda: caller.send("initialize", {"protocolVersion": "2025-11-25", "capabilities": {},
                                                               "clientInfo": {"name": "t", "version": "1"}})[0] == 200)
            caller.initialize()
            assert caller.call() == 200
        say("a key made at the control plane calls through each data replica; a wrong one is 401")
        assert callers[1].call(callers[0].session) == 200 and callers[0].call(callers[1].session) == 200
        shared = [self.boxes.folder / "volumes" / volume / "session.keys" for volume in ("data-1", "data-2")]
        say(f"a session of one goes on at the other, with no file between them ({', '.join(p.name for p in shared if p.exists())} is a copy)")
        return callers

    def sessions(self, callers):
        # Both replicas know both sessions; each is listed where it was used last, which is told in seconds.
        time.sleep(1.1)
        assert all(caller.send("ping")[0] == 200 for caller in callers)
        page = self.api("GET", "/tenants/default/sessions?limit=100")
        homes, ids = {item["replica"] for item in page["items"]}, [item["id"] for item in page["items"]]
        assert page["missing"] == [] and len(homes) == 2 and len(ids) == len(set(ids)) >= len(callers), page
        say(f"sessions at the control plane: {len(page['items'])} at home in {len(homes)} replicas, none missing")
        refused = http("GET", "http://tollgate-1:9090/api/v1/tenants/default/sessions", self.secret("admin_token"))
        assert refused[0] == 404 and "no_api_here" in refused[2], refused
        assert self.internal("tollgate-1", None).startswith("refused"), "without a certificate"
        stranger = self.secrets / "stranger"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                        "-subj", "/CN=control", "-keyout", f"{stranger}_key", "-out", f"{stranger}_cert"],
                       check=True, capture_output=True)
        assert self.internal("tollgate-1", "stranger").startswith("refused"), "with a certificate of somebody else"
        assert "200" in self.internal("tollgate-1", "control"), self.internal("tollgate-1", "control")
        # One that both have served is listed for each.
        for session in {item["id"] for item in page["items"]}:
            self.api("DELETE", f"/tenants/default/sessions/{session}")
        codes = [caller.call() for caller in callers]
        assert codes == [404, 404], codes
        say("data replicas have no API (404 no_api_here); the internal listener refuses who has no certificate of "
            "its authority, and answers the control replica's; "
            "closed sessions are 404 at both")

    def internal(self, place, who):
        """What the internal listener answers to who shows this certificate."""
        context = ssl.create_default_context(cafile=self.secrets / "replicas_ca")
        if who:
            context.load_cert_chain(self.secrets / f"{who}_cert", self.secrets / f"{who}_key")
        try:
            with socket.create_connection((place, 7946), 5) as raw, context.wrap_socket(raw, server_hostname=place) as line:
                line.sendall(f"GET /internal/v1/health HTTP/1.1\r\nhost: {place}\r\nconnection: close\r\n\r\n".encode())
                return line.recv(1000).decode() or "refused: closed"
        except (ssl.SSLError, ConnectionError) as error:
            return f"refused: {error}"

    def limit(self):
        made = self.api("POST", "/tenants/default/api-keys", {"roles": ["developer"], "note": "busy"})
        callers = [Caller(place, made["key"]) for place in DATA]
        eventually("the key is known", lambda: all(c.send("ping")[0] == 200 for c in callers))
        for caller in callers:
            caller.initialize()
        began, granted, refused = time.monotonic(), 0, 0
        while refused < 40:
            for caller in callers:
                if caller.call() == 200:
                    granted += 1
                else:
                    refused += 1
        most = LIMIT + LIMIT / 60 * (time.monotonic() - began) + 1
        trips = {place: int(self.metric(place, "tollgate_limit_trips_total")) for place in DATA}
        assert LIMIT * 0.8 < granted <= most, f"{granted} of at most {most}"
        assert all(trips.values()), trips
        say(f"a limit of {LIMIT} a minute, calls to both replicas in turn: {granted} granted (at most {most:.0f}; without sharing "
            f"{2 * LIMIT}), trips to the server {trips}")

    def balancer(self):
        haproxy = TOOLS / "haproxy"
        if not (haproxy / "usr/sbin/haproxy").exists():
            print("skipped  balancer: haproxy is not installed")
            return None
        library = next((haproxy / "usr/lib").glob("*-linux-gnu"))
        service = self.boxes.services["balancer"]
        service["environment"] = {"LD_LIBRARY_PATH": f"/opt/{library.name}"}
        command = ["/usr/local/bin/haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
        # The image's own folder is under /usr, which is this machine's and read-only: the file is bound elsewhere.
        service["volumes"][0]["target"] = "/opt/haproxy.cfg"
        command[-1] = "/opt/haproxy.cfg"
        self.boxes.start("balancer", {"haproxy": haproxy / "usr/sbin/haproxy"}, command, (99, 99), [(library, f"/opt/{library.name}", False)])
        caller = Caller("balancer", self.key)
        eventually("the balancer serves", lambda: caller.send("ping")[0] == 200)
        caller.initialize()
        assert caller.call() == 200
        lines = [json.loads(line) for place in DATA for line in self.boxes.log(place).splitlines()
                 if line.startswith('{"time') and '"client_ip"' in line]
        ours = f"{boxes.SUBNET}.1"
        assert lines and all(line["client_ip"] == ours for line in lines), {line["client_ip"] for line in lines}
        say(f"through the balancer as well; the access log has the client's address ({ours}), not the balancer's")
        return caller

    def asked(self, query):
        answer = http("GET", "http://prometheus:9090/api/v1/query?query=" + urllib.request.quote(query))
        return json.loads(answer[2])["data"]["result"] if answer[0] == 200 else []

    def prometheus(self):
        program = TOOLS / "prometheus/usr/bin/prometheus"
        if not program.exists():
            print("skipped  prometheus: not installed")
            return
        service = self.boxes.services["prometheus"]
        self.boxes.start("prometheus", {"prometheus": program}, ["prometheus", *service["command"]], (65534, 65534))

        def up():
            try:
                return self.asked('up{job="tollgate"} == 1')
            except OSError:
                return []

        eventually("Prometheus scrapes all", lambda: len(up()) == 3, 40)
        rules = json.loads(http("GET", "http://prometheus:9090/api/v1/rules")[2])["data"]["groups"][0]["rules"]
        assert all(rule["health"] in ("ok", "unknown") for rule in rules), rules
        # All is well, so no alert may be about to fire; how fast this machine is, is not the question.
        time.sleep(11)
        for rule in rules:
            found = [] if rule["name"] == "TollgateSlow" else self.asked(rule["query"])
            assert not found, f"{rule['name']} is about {found}"
        say(f"prometheus: {len(up())} targets up, {len(rules)} rules loaded, none has anything to say")
        wrong = http("GET", "http://tollgate-1:9091/metrics", self.secret("admin_token"))[0]
        api = http("GET", "http://control:9090/api/v1/me", self.secret("metrics_token"))[0]
        assert (wrong, api) == (401, 401), (wrong, api)
        say("the token of metrics opens nothing else (401)")

    def upgrade(self):
        """What the second instance of the systemd unit does: the script, with the role in its environment."""
        caller = Caller("tollgate-2", self.key)
        caller.initialize()
        first = self.boxes.succeed("tollgate-2", "sh", "/usr/local/bin/tollgate-start", more=["TOLLGATE_ROLE=data"])
        calls = 0
        until = time.monotonic() + 60
        while first.poll() is None and time.monotonic() < until:
            assert caller.call() == 200
            calls += 1
            time.sleep(0.2)
        assert first.poll() == 0, f"the old process ended with {first.poll()}:\n{self.boxes.log('tollgate-2')}"
        assert caller.call() == 200
        eventually("other replicas reach it", lambda: "200" in self.internal("tollgate-2", "control"))
        refused = http("GET", "http://tollgate-2:9090/api/v1/me", self.secret("admin_token"))
        assert refused[0] == 404 and "no_api_here" in refused[2], refused
        page = eventually("it is in the lists", lambda: not (p := self.api("GET", "/tenants/default/sessions"))["missing"] and p)
        say(f"tollgate-start of the systemd unit replaces tollgate-2 (TOLLGATE_ROLE=data): {calls} calls meanwhile, none failed, the old "
            f"process ended with 0; {len(page['items'])} sessions listed, none missing")

    # ---- what goes away -------------------------------------------------------------------------------------------------

    def outages(self, balanced):
        caller, direct = balanced or Caller("tollgate-1", self.key), Caller("tollgate-1", self.key)
        caller.initialize()
        direct.initialize()
        self.boxes.kill("valkey")
        eventually("it is noticed", lambda: self.metric("tollgate-1", "tollgate_limit_server_up") == 0)
        assert all(Caller(place, self.key).send("ping")[0] == 200 for place in DATA)
        # First what it has in hand, then what `fail` says.
        eventually("fail decides", lambda: direct.call() == 200 and self.metric("tollgate-1", "tollgate_limit_fallbacks_total") > 0)
        # What the alert says, of those that were connected and of nobody else.
        alert = "tollgate_limit_server_up == 0 and max_over_time(tollgate_limit_server_up[1d]) == 1"
        assert alert in (ROOT / "deploy/prometheus/alerts.yaml").read_text()
        if "prometheus" in self.boxes.running:
            def lost():
                return {result["metric"]["instance"] for result in self.asked(alert)}
            eventually("the alert", lambda: lost() == {f"{place}:9091" for place in DATA}, 40)
        self.valkey()
        eventually("it is back", lambda: all(self.metric(p, "tollgate_limit_server_up") == 1 for p in DATA))
        say("valkey killed: calls go on (fail: local), tollgate_limit_fallbacks_total counts, the alert is about "
            "the data replicas; started again: connected again")
        code = self.boxes.stop("control")
        assert code == 0, f"control ended with {code}:\n{self.boxes.log('control')}"
        assert caller.call() == 200
        self.boxes.kill("postgres")
        assert caller.call() == 200
        say("control stopped (exit 0), postgres killed: calls go on")
        self.boxes.start("postgres", {"pg_isready": "/usr/bin/true"}, self.again(), self.owner("postgres"))
        self.tollgate("control")
        self.boxes.healthy("control", 90)
        if balanced:
            self.boxes.kill("tollgate-1")
            eventually("the other serves the session", lambda: self.retry(balanced) == 200)
            say("tollgate-1 killed: its session goes on at the other, through the balancer")

    def retry(self, caller):
        try:
            return caller.call()
        except (OSError, AssertionError):
            return 0

    def owner(self, name):
        found = (self.boxes.folder / "volumes" / name).stat()
        return found.st_uid, found.st_gid

    def again(self):
        bin = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))[-1]
        return ["sh", "-ec", f"rm -f /var/lib/postgresql/data/postmaster.pid; exec {bin}/postgres -D /var/lib/postgresql/data "
                             "-k /tmp -c listen_addresses='*'"]

    def audit(self):
        tollgate = "/usr/local/bin/tollgate"
        key = self.boxes.inside("control", tollgate, "audit", "key").stdout.strip().splitlines()[-1]
        other = self.boxes.inside("tollgate-2", tollgate, "audit", "key").stdout.strip().splitlines()[-1]
        assert key == other and key.startswith("ed25519:"), (key, other)
        text = self.boxes.inside("control", tollgate, "audit", "export").stdout
        (self.folder / "audit.jsonl").write_text(text)
        done = subprocess.run([self.binary, "audit", "verify", self.folder / "audit.jsonl", "--key", key], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        say(f"audit: one key for all, the export of {len(text.splitlines())} lines verifies")

    def end(self):
        for name in ["tollgate-2", "control"]:
            code = self.boxes.stop(name)
            assert code == 0, f"{name} ended with {code}:\n{self.boxes.log(name)}"
        say("SIGTERM: they end with 0")


def run(folder, binary):
    topology = Topology(folder, binary, NAMES)
    try:
        topology.start()
        callers = topology.call()
        topology.sessions(callers)
        topology.limit()
        balanced = topology.balancer()
        topology.prometheus()
        topology.upgrade()
        topology.outages(balanced)
        topology.audit()
        topology.end()
    finally:
        topology.boxes.end()
    print("topology: all well")


def main(run, about, script):
    """The frame of a script that works in namespaces: may it, and may it not."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="fail where it cannot be run")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and volumes")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    name = pathlib.Path(script).stem
    binary = pathlib.Path(os.environ.get("TOLLGATE", ROOT / "target/debug/tollgate")).resolve()
    if not binary.exists():
        print(f"FAILED   {name}: {binary} is not built")
        return 1
    why = None if args.inside else boxes.lacking()
    for program in ("redis-server", "openssl"):
        why = why or (None if shutil.which(program) else f"{program} is not installed")
    if why or not list(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        print(f"skipped  {name}: {why or 'PostgreSQL is not installed'}")
        return 1 if args.strict else 0
    if not args.inside:
        own = [sys.executable, script, *sys.argv[1:], "--inside"]
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", *own])
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"tollgate-{name}-"))
    folder.chmod(0o755)
    try:
        run(folder, binary)
        return 0
    except AssertionError as error:
        print(f"FAILED   {name}: {error}")
        return 1
    finally:
        if args.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(run, __doc__, __file__))
