#!/usr/bin/env python3
"""Runs what the Helm chart renders without a cluster: each pod a process in namespaces of its own (boxes.py).

    tests/tools/install.sh deploy          # once
    .tools/deploy/bin/python tests/deploy/release.py         # TOLLGATE=path/to/tollgate, default target/debug/tollgate

The migration job, init containers, arguments, variables, mounted configuration and secrets, volumes, probes and names of pods are
those of the manifests; PostgreSQL and Redis for Valkey are those of topology.py. First with `roles: separate` and one name in all
certificates, then with `roles: all` and the names of pods.
"""

import base64
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/deploy"))

import yaml  # noqa: E402

import topology  # noqa: E402
from topology import Caller, eventually, http, say  # noqa: E402

VALUES = {
    "publicUrl": "http://127.0.0.1:8080",
    "secrets": {"valkey": {"name": "tollgate-valkey", "key": "password"}},
    "valkey": {"urls": ["redis://valkey:6379"]},
    "control": {"replicas": 1},
    "config": {"shutdown": {"announce": "1s"}},
}


def rendered(roles):
    import helm_python.chart as helm
    chart = helm.Chart.load(str(ROOT / "deploy/helm/tollgate"))
    name = "tollgate-replica" if roles == "separate" else ""
    texts = chart.render({**VALUES, "roles": roles, "internal": {"name": name}}, name="gw", namespace="mcp", is_install=True)
    return [d for name, text in texts.items() if not name.endswith("NOTES.txt") for d in yaml.safe_load_all(text) if d]


def pods(documents):
    """Name → (names by which it is reached, template)."""
    found = {}
    for document in documents:
        name, spec = document["metadata"]["name"], document["spec"] if "spec" in document else {}
        if document["kind"] == "StatefulSet":
            for number in range(spec["replicas"]):
                pod = f"{name}-{number}"
                found[pod] = ([f"{pod}.{spec['serviceName']}.mcp.svc"], spec["template"])
        if document["kind"] == "Job":
            found[name] = ([], spec["template"])
    return found


class Release(topology.Topology):
    def __init__(self, folder, binary, roles):
        self.documents = rendered(roles)
        self.pods = pods(self.documents)
        self.data = [name for name, (_, template) in self.pods.items() if "-data-" in name]
        super().__init__(folder, binary, [*self.pods, "postgres", "valkey", "everything"],
                         {name: names for name, (names, _) in self.pods.items()})
        self.mounted = folder / "mounted"
        self.secrets_of_the_cluster("tollgate-replica" if roles == "separate" else "*.gw-tollgate-data.mcp.svc")

    def secrets_of_the_cluster(self, name):
        """What docs/deploy.md makes."""
        made = self.mounted / "internal"
        made.mkdir(parents=True)
        text = (ROOT / "docs/deploy.md").read_text()
        commands = re.findall(r"^    (openssl req -x509 (?:.*\\\n)+.*)", text, re.M)
        assert len(commands) == 2, "docs/deploy.md makes an authority and a certificate"
        for command in commands:
            command = command.replace("DNS:tollgate-replica", f"DNS:{name}")
            subprocess.run(["sh", "-fec", command], cwd=made, check=True, capture_output=True)
        (made / "replicas-ca.key").unlink()
        password = self.secret("store_password")
        self.values = {
            "tollgate-store": {"url": f"postgres://tollgate:{password}@postgres/tollgate?sslmode=disable"},
            "tollgate-admin": {"token": self.secret("admin_token")},
            "tollgate-metrics": {"token": self.secret("metrics_token")},
            "tollgate-keys": {"keys": "k1 " + base64.b64encode(os.urandom(32)).decode()},
            "tollgate-valkey": {"password": self.secret("valkey_password")},
            "tollgate-internal": {path.name: path.read_text() for path in made.iterdir()},
        }

    def tree(self, pod, volume):
        """The folder of a pod's volume, as the kubelet fills it: owned by root, read by the pod's group."""
        folder = self.mounted / pod / volume["name"]
        if "configMap" in volume:
            files = next(d["data"] for d in self.documents
                         if d["kind"] == "ConfigMap" and d["metadata"]["name"] == volume["configMap"]["name"])
        elif "secret" in volume:
            files = self.values[volume["secret"]["secretName"]]
            items = volume["secret"].get("items")
            files = {item["path"]: files[item["key"]] for item in items} if items else files
        else:
            return self.boxes.volume(f"{pod}-{volume['name']}", (65532, 65532))
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            if not path.exists():
                path.write_text(text)
                os.chown(path, 0, 65532)
                path.chmod(0o440)
        return folder

    def pod(self, name):
        """Runs a pod: its init containers to their end, then its container."""
        spec = self.pods[name][1]["spec"]
        volumes = {volume["name"]: self.tree(name, volume) for volume in spec["volumes"]}
        volumes.setdefault("data", self.boxes.volume(f"{name}-data", (65532, 65532)))
        user = (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"])
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            environment = {}
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                if "secretKeyRef" in source:
                    environment[variable["name"]] = self.values[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
                elif "fieldRef" in source:
                    fields = {"metadata.name": name, "status.podIP": self.boxes.addresses[name]}
                    environment[variable["name"]] = fields[source["fieldRef"]["fieldPath"]]
                else:
                    expanded = re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], variable["value"])
                    environment[variable["name"]] = expanded
            command = container.get("command") or ["/usr/local/bin/tollgate", *container["args"]]
            if "args" in container:
                environment.update(re.findall(r"(TOLLGATE_\w+)=(\S+)", (ROOT / "deploy/Dockerfile").read_text()))
            self.boxes.services[name] = {"environment": environment, "read_only": True, "cap_drop": ["ALL"]}
            binds = [(pathlib.Path(volumes[m["name"]], m.get("subPath", "")), m["mountPath"], not m.get("readOnly"))
                     for m in container["volumeMounts"]]
            process = self.boxes.start(name, {"tollgate": self.binary}, command, user, binds)
            if container in spec.get("initContainers", []):
                assert process.wait(30) == 0, self.boxes.log(name)
        return process

    def ready(self, name):
        """The readiness probe."""
        probe = self.pods[name][1]["spec"]["containers"][0]["readinessProbe"]["httpGet"]
        port = next(p["containerPort"] for p in self.pods[name][1]["spec"]["containers"][0]["ports"] if p["name"] == probe["port"])

        def asked():
            assert self.boxes.running[name][0].poll() is None, self.boxes.log(name)
            try:
                return http("GET", f"http://{name}:{port}{probe['path']}")[0] == 200
            except OSError:
                return False
        eventually(f"{name} is ready", asked, 60)

    def run(self, roles):
        self.everything()
        self.postgres()
        self.valkey()
        job = next(name for name in self.pods if name.endswith("-migrate"))
        replicas = [name for name in self.pods if name != job]
        early = self.pod(self.data[0])
        assert early.wait(60) != 0 and "migrate" in self.boxes.log(self.data[0]), self.boxes.log(self.data[0])
        self.boxes.running.pop(self.data[0])
        done = self.pod(job)
        assert done.wait(60) == 0, self.boxes.log(job)
        self.boxes.running.pop(job)
        for name in replicas:
            self.pod(name)
        for name in replicas:
            self.ready(name)
        say(f"roles: {roles}: not without the job's tables; after it {', '.join(replicas)} are ready")
        operator = next(name for name in replicas if roles == "all" or "-control-" in name)
        self.place = operator
        first = self.folder / "deploy/compose/first.yaml"
        environment = {"TOLLGATE_TOKEN": self.secret("admin_token"), "TOLLGATE_API": f"http://{operator}:9090"}
        applied = subprocess.run([self.binary, "apply", first, "--if-revision", "0", "--wait", "20"], env=environment,
                                 capture_output=True, text=True, timeout=60)
        assert applied.returncode == 0, applied.stdout + applied.stderr
        self.key = self.api("POST", "/tenants/default/api-keys", {"roles": ["developer"]})["key"]
        callers = [Caller(name, self.key) for name in self.data]
        for caller in callers:
            eventually("the key is known", lambda: caller.send("ping")[0] == 200)
            caller.initialize()
            assert caller.call() == 200
        assert callers[0].call(callers[1].session) == 200
        # Both replicas know the second session; each is listed where it was used last, which is told in seconds.
        time.sleep(1.1)
        assert all(caller.send("ping")[0] == 200 for caller in callers)
        page = self.api("GET", "/tenants/default/sessions")
        ids = [item["id"] for item in page["items"]]
        assert len(ids) == len(set(ids)) and page["missing"] == [], page
        assert len({item["replica"] for item in page["items"]}) == len(self.data), page
        limited = [self.metric(name, "tollgate_limit_server_up") for name in self.data]
        assert limited == [1] * len(self.data), limited
        keys = {self.boxes.inside(name, "/usr/local/bin/tollgate", "audit", "key").stdout for name in replicas}
        assert len(keys) == 1 and next(iter(keys)).startswith("ed25519:"), keys
        say(f"roles: {roles}: {applied.stdout.strip().splitlines()[-1]}; calls through each, {len(page['items'])} sessions listed, "
            "none missing, shared limits connected, one audit key")
        for name in replicas:
            code = self.boxes.stop(name)
            assert code == 0, f"{name} ended with {code}: {self.boxes.log(name)}"


def run(folder, binary):
    for roles in ("separate", "all"):
        own = folder / roles
        own.mkdir()
        release = Release(own, binary, roles)
        try:
            release.run(roles)
        finally:
            release.boxes.end()
            release.server.shutdown()
            release.server.server_close()
            release.boxes.sh("ip link delete bridge; umount /etc/hosts")
    print("release: all well")


if __name__ == "__main__":
    sys.exit(topology.main(run, __doc__, __file__))
