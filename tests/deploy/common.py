"""What the checks of deploy/ share: where things are, running programs, `tollgate check` of a configuration."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / ".tools/deploy"
# What stands in for environment variables, by the end of their names.
STAND_INS = [("PUBLIC_URL", "https://mcp.example.com"), ("URL", "postgres://u:p@127.0.0.1/tollgate"), ("ADVERTISE", "replica:7946")]
PROMTOOL = ROOT / ".tools/prometheus/usr/bin/promtool"


class Skip(Exception):
    """A tool is missing."""


def run(*command, **options):
    """Runs a command; its output is part of the failure."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} {' '.join(map(str, command[1:4]))}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


def tool(name):
    """A program of the linters' environment, or of the machine."""
    for found in (TOOLS / "bin" / name, shutil.which(name)):
        if found and pathlib.Path(found).exists():
            return found
    raise Skip(f"{name} is not installed")


def binary():
    """The gateway."""
    path = pathlib.Path(os.environ.get("TOLLGATE", ROOT / "target/debug/tollgate"))
    assert path.exists(), f"{path} is not built"
    return path


def certificate(folder, name):
    """A certificate of a moment, its key, and an authority's: NAME.crt, NAME.key, ca.crt."""
    folder.mkdir(exist_ok=True)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
        "-subj", "/CN=mcp.example.com", "-addext", "subjectAltName=DNS:mcp.example.com",
        "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")
    shutil.copy(folder / f"{name}.crt", folder / "ca.crt")


def check_configuration(text, where):
    """`tollgate check`, with secrets and certificates that are not here replaced by ones that are."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = text.replace("/run/secrets/", f"{folder}/")
        for place in ("tls", "internal", "valkey"):
            if f"/etc/tollgate/{place}/" in text:
                text = text.replace(f"/etc/tollgate/{place}/", f"{folder}/{place}/")
                certificate(folder / place, "tls")
        if f"{folder}/replica_cert" in text:
            certificate(folder, "replica")
            for own, name in (("replica.crt", "replica_cert"), ("replica.key", "replica_key"), ("ca.crt", "replicas_ca")):
                shutil.copy(folder / own, folder / name)
        for path in set(re.findall(r"\$\{file:([^}]+)\}", text)):
            pathlib.Path(path).write_text("0123456789abcdef0123456789abcdef\n")
        for path in set(re.findall(rf"{folder}/\w+", text)):
            pathlib.Path(path).touch()
        env = {"PATH": os.environ["PATH"]}
        for name in re.findall(r"\$\{env:([A-Z_]+)\}", text):
            env[name] = next((value for end, value in STAND_INS if name.endswith(end)), "0123456789abcdef")
        (folder / "tollgate.yaml").write_text(text)
        done = subprocess.run([binary(), "check", folder / "tollgate.yaml"], capture_output=True,
                              text=True, timeout=30, env=env)
        assert done.returncode == 0, f"{where}:\n{done.stdout}{done.stderr}"
