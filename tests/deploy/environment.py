"""Checks of deploy/compose: what it names is there and fits together, its script makes what it needs, its documents are accepted."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import yaml

from common import DEPLOY, ROOT, binary, check_configuration, run, tool

COMPOSE = DEPLOY / "compose"


def parsed():
    env = {**os.environ, "TOLLGATE_PUBLIC_URL": "https://mcp.example.com"}
    command = tool("docker-compose")
    return yaml.safe_load(run(command, "-f", COMPOSE / "compose.yaml", "--profile", "*", "config", env=env))


def replicas(services):
    """Services that run the gateway: name → role."""
    return {name: service["command"][2] for name, service in services.items() if service.get("command", [])[:2] == ["serve", "--role"]}


def mounted(service):
    return {pathlib.PurePosixPath("/run/secrets") / secret.get("target", secret["source"]) for secret in service.get("secrets", [])}


def compose():
    document = parsed()
    services, roles = document["services"], replicas(document["services"])
    assert sorted(roles.values()) == ["control", "data", "data"], roles
    configuration = yaml.safe_load((COMPOSE / "tollgate.yaml").read_text())
    named = set(map(pathlib.PurePosixPath, re.findall(r"/run/secrets/[\w-]+", (COMPOSE / "tollgate.yaml").read_text())))
    networks, folders = {}, []
    for name, service in services.items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert pathlib.Path(volume["source"]).exists(), f"{name}: {volume['source']} is not there"
        if service["image"].startswith(("tollgate:", "valkey/")):
            assert service["read_only"] and service["cap_drop"] == ["ALL"], f"{name} may write or has capabilities"
        for dependency in service.get("depends_on", {}):
            assert "test" in services[dependency].get("healthcheck", {}) or name == "grafana", f"{dependency} has no health check"
        networks[name] = set(service["networks"])
    for name, role in roles.items():
        service = services[name]
        assert named <= mounted(service), f"{name} lacks {named - mounted(service)}"
        own = {secret["source"] for secret in service["secrets"] if secret["source"].endswith(("_cert", "_key"))}
        assert own == {f"{name}_cert", f"{name}_key"}, f"{name} has {own}"
        assert service["environment"]["TOLLGATE_ADVERTISE"] == f"{name}:7946", name
        folders += [volume["source"] for volume in service["volumes"] if volume["target"] == "/var/lib/tollgate"]
        assert networks[name] >= networks["postgres"] | networks["valkey"] | networks["balancer"], name
        ports = [port["target"] for port in service.get("ports", [])]
        assert ports == ([9090] if role == "control" else []), f"{name} publishes {ports}"
    assert len(folders) == len(set(folders)) == len(roles), "replicas share a data volume"
    assert not networks["everything"] & networks["postgres"], "MCP servers reach the database"
    assert configuration["listeners"]["mcp"]["trusted_proxies"] == \
        [f"{services['balancer']['networks']['gateway']['ipv4_address']}/32"], "another proxy is trusted than there is"
    balanced = re.findall(r"^ +server (\S+) (\S+):(\d+)$", (COMPOSE / "haproxy.cfg").read_text(), re.M)
    assert {host for _, host, _ in balanced} == {name for name, role in roles.items() if role == "data"}, balanced
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"]
    port = configuration["listeners"]["metrics"]["address"].rpartition(":")[2]
    assert {target: group["labels"]["role"] for group in scraped for target in group["targets"]} == \
        {f"{name}:{port}": role for name, role in roles.items()}, "Prometheus asks others than there are"
    return f"{len(services)} services, {len(roles)} replicas"


def replica_secrets():
    """The script makes every file that compose mounts, keeps what is there, and renews what ends soon."""
    wanted = {pathlib.Path(secret["file"]).name for secret in parsed()["secrets"].values()}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        script, made = folder / "secrets.sh", folder / "secrets"
        shutil.copy(COMPOSE / "secrets.sh", script)
        # Without openssl it says so, and makes the rest.
        programs = folder / "bin"
        programs.mkdir()
        for name in re.findall(r"\b(?:base64|bash|cat|chmod|dirname|head|mkdir|mktemp|mv|rm|tr)\b", script.read_text()):
            if not (programs / name).exists():
                (programs / name).symlink_to(shutil.which(name))
        done = subprocess.run([programs / "bash", script], env={"PATH": str(programs)}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "openssl is missing" in done.stderr, done
        passwords = {path.name: path.read_bytes() for path in made.iterdir()}
        assert passwords and all(passwords.values()), "without openssl nothing is made"
        tool("openssl")
        run("bash", script, "tollgate-3")
        assert wanted <= {path.name for path in made.iterdir()}, wanted - {path.name for path in made.iterdir()}
        assert passwords.items() <= {path.name: path.read_bytes() for path in made.iterdir()}.items(), "a password has changed"
        assert made.stat().st_mode & 0o777 == 0o700 and (made / "replicas_ca_key").stat().st_mode & 0o077 == 0
        names = ["control", "tollgate-1", "tollgate-2", "tollgate-3"]
        for name in names:
            for purpose in ("sslserver", "sslclient"):
                run("openssl", "verify", "-CAfile", made / "replicas_ca", "-purpose", purpose, "-verify_hostname", name, made / f"{name}_cert")
        authority = run("openssl", "x509", "-in", made / "replicas_ca", "-noout", "-ext", "basicConstraints,keyUsage")
        assert "CA:TRUE" in authority and "Certificate Sign" in authority, authority
        before = {path.name: path.read_bytes() for path in made.iterdir()}
        ending = made / "tollgate-1_cert"
        ending.unlink()
        run("openssl", "req", "-x509", "-key", made / "tollgate-1_key", "-subj", "/CN=tollgate-1", "-days", "20", "-out", ending)
        run("bash", script)
        changed = {path.name for path in made.iterdir() if before.get(path.name) != path.read_bytes()}
        assert changed == {"tollgate-1_cert", "tollgate-1_key"}, changed
        run("openssl", "verify", "-CAfile", made / "replicas_ca", ending)
    return f"{len(wanted)} files"


def configurations_are_accepted():
    """What replicas read, and each document together with it."""
    static = COMPOSE / "tollgate.yaml"
    check_configuration(static.read_text(), static.relative_to(ROOT))
    documents = [path for path in DEPLOY.rglob("*.yaml") if path != static and "helm" not in path.parts
                 and re.search(r"^version: 1$", path.read_text(), re.M)]
    assert documents, "there is no document in deploy/"
    for path in documents:
        whole = {**yaml.safe_load(static.read_text()), **yaml.safe_load(path.read_text()), "source": "file"}
        check_configuration(yaml.safe_dump(whole), path.relative_to(ROOT))
    return f"{1 + len(documents)} files"


def database_roles():
    """The compose environment makes the roles that the binary asks for."""
    wanted = {line for line in run(binary(), "migrate", "roles").splitlines() if line.startswith(("CREATE", "GRANT"))}
    made = (COMPOSE / "postgres-init.sh").read_text()
    for line in wanted:
        assert line.split(";")[0] + ";" in made, f"compose/postgres-init.sh lacks: {line}"
