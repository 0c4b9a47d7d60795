#!/usr/bin/env python3
"""Holds deploy/ to the facts: metrics, flags, variables and configurations that it names exist; linters agree.

    tests/tools/install.sh deploy                     # once: linters, into .tools/
    .tools/deploy/bin/python tests/deploy/check.py    # TOLLGATE=path/to/tollgate, default target/debug/tollgate

What a linter is missing for is said and counted as skipped; with --strict it fails.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from chart import chart
from common import DEPLOY, PROMTOOL, ROOT, Skip, binary, run, tool
from environment import compose, configurations_are_accepted, database_roles, replica_secrets

# Labels that Prometheus adds by itself.
SCRAPED_LABELS = {"instance", "job", "le", "pod", "namespace", "container", "service", "endpoint"}


def text_files():
    """Everything in deploy/ that is read here, and the page about it."""
    files = [p for p in DEPLOY.rglob("*") if p.is_file() and "__pycache__" not in p.parts and "secrets" not in p.parts]
    return sorted([*files, ROOT / "docs/deploy.md"])


# ---- facts ----------------------------------------------------------------------------------------------------------

def specs():
    """Name → labels, from the table of metrics."""
    text = (ROOT / "src/telemetry/names.rs").read_text()
    found = re.findall(r'(counter|gauge|seconds)\(\s*"(tollgate_[a-z_]+)",.*?&\[([^\]]*)\],?\s*\);', text, re.S)
    assert len(found) > 20, "the table of metrics is not read any more"
    return {name: (kind, set(re.findall(r'"([a-z_]+)"', labels))) for kind, name, labels in found}


def queries():
    """Every PromQL expression in deploy/, with where it is."""
    for path in sorted(DEPLOY.rglob("*.json")):
        for panel in json.loads(path.read_text()).get("panels", []):
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']}", target["expr"]
    for path in sorted((DEPLOY / "prometheus").glob("*.yaml")):
        for group in (yaml.safe_load(path.read_text()) or {}).get("groups", []):
            for rule in group["rules"]:
                yield f"{path.name}: {rule.get('alert', rule.get('record'))}", rule["expr"]


def metrics_exist():
    known = specs()
    labels = set().union(*(labels for _, labels in known.values())) | SCRAPED_LABELS
    seen = set()
    for where, expression in queries():
        for name in re.findall(r"\btollgate_[a-z_]+", expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name) if name not in known else name
            assert base in known, f"{where}: there is no metric {name}"
            kind, own = known[base]
            assert name == base or kind == "seconds", f"{where}: {base} is no histogram"
            seen.add(base)
            for selector in re.findall(re.escape(name) + r"\{([^}]*)\}", expression):
                for label in re.findall(r'([a-z_]+)\s*(?:=~|!~|!=|=)"', selector):
                    assert label in own | SCRAPED_LABELS, f"{where}: {name} has no label {label}"
        for group in re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", expression):
            for label in re.findall(r"[a-z_]+", group):
                assert label in labels, f"{where}: no metric has a label {label}"
    # Not an error: who adds a metric need not know about dashboards.
    unseen = sorted(set(known) - seen)
    return f"{len(seen)} metrics" + (f"; shown nowhere: {', '.join(unseen)}" if unseen else "")


def metrics_named_elsewhere_exist():
    known = specs()
    for path in text_files():
        if path.suffix in (".json", ".py"):
            continue
        # Two of the names are roles of the database.
        for name in re.findall(r"\btollgate_[a-z_]+\b", path.read_text()):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            if name in ("tollgate_platform", "tollgate_tenant"):
                continue
            adapter = "_per_second" in name
            assert base in known or adapter or f"{base}_total" in known, f"{path.relative_to(ROOT)}: no metric {name}"


def help_of(words):
    """The help of a subcommand; the words may go on with arguments."""
    done = subprocess.run([binary(), *words, "--help"], capture_output=True, text=True, timeout=30)
    return done.stdout if done.returncode == 0 else None


def commands():
    """Every use of the command line: where, and its words."""
    for path in text_files():
        if path.suffix in (".json", ".py"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}"
            if re.match(r"\s*(#|//|\{\{/\*|tollgate:)", line):
                continue
            lists = re.findall(r"(?:command|args|CMD|entrypoint):?\s*\[([^\]]*)\]", line)
            for words in lists:
                words = [w.strip().strip("\"'") for w in words.split(",")]
                if words and words[0].endswith("tollgate"):
                    words = words[1:]
                if words and re.fullmatch(r"[a-z]+", words[0]) and help_of([words[0]]) is not None:
                    yield where, words
            if not lists:
                for rest in re.findall(r'(?:^|[\s`/"$])tollgate"?\s+([a-z][^`|;&>#()]*)', line):
                    words = rest.replace('"', " ").split()
                    if help_of([words[0]]) is not None:
                        yield where, words
                    elif not re.search(r"[.:]\s|^\s*[-*]|^[A-Z]", line) and "`tollgate " + words[0] in line:
                        raise AssertionError(f"{where}: there is no `tollgate {words[0]}`")


def flags_exist():
    cache, uses = {}, 0
    for where, words in commands():
        sub = [words[0]]
        if len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]) and "Commands:" in (help_of(sub) or ""):
            sub.append(words[1])
        key = tuple(sub)
        if key not in cache:
            cache[key] = help_of(sub)
        assert cache[key] is not None, f"{where}: there is no `tollgate {' '.join(sub)}`"
        for word in words:
            flag = re.match(r"--[a-z][a-z-]*", word)
            if flag:
                assert re.search(re.escape(flag[0]) + r"\b", cache[key]), \
                    f"{where}: `tollgate {' '.join(sub)}` has no {flag[0]}"
        uses += 1
    assert uses >= 8, "the command lines in deploy/ are not found any more"
    return f"{uses} command lines"


def variables_exist():
    cli = "\n".join(path.read_text() for path in (ROOT / "src/cli").rglob("*.rs"))
    known = set(re.findall(r'"(TOLLGATE_[A-Z_]+)"', cli)) | {"TOLLGATE_HEALTH"}
    texts = {path: path.read_text() for path in text_files()}
    for text in texts.values():
        known |= set(re.findall(r"\$\{env:(TOLLGATE_[A-Z_]+)", text))
        known |= set(re.findall(r'key_env"?:? "?(TOLLGATE_[A-Z_]+)', text))
    for path, text in texts.items():
        for name in re.findall(r"\bTOLLGATE_[A-Z_]+\b", text):
            assert name in known, f"{path.relative_to(ROOT)}: nothing reads {name}"


# ---- dashboards -----------------------------------------------------------------------------------------------------

def dashboards_are_current():
    run(sys.executable, DEPLOY / "grafana/build.py", "--check")


def dashboards_hold_together():
    uids = set()
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        assert board["uid"] not in uids, f"{path.name}: its uid is another's"
        uids.add(board["uid"])
        variables = {v["name"] for v in board["templating"]["list"]}
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids)), f"{path.name}: two panels have one id"
        taken = set()
        for panel in board["panels"]:
            grid = panel["gridPos"]
            assert grid["x"] + grid["w"] <= 24, f"{path.name}: {panel['title']} is too far right"
            cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
            assert not cells & taken, f"{path.name}: {panel['title']} lies on another"
            taken |= cells
            assert panel["type"] == "row" or panel["targets"], f"{path.name}: {panel['title']} asks nothing"
            for used in re.findall(r"\$\{?([a-z]+)\b", json.dumps(panel.get("targets", []))):
                assert used in variables, f"{path.name}: {panel['title']} uses ${used}"
    assert len(uids) >= 2


# ---- linters --------------------------------------------------------------------------------------------------------

def dockerfile():
    run(tool("hadolint"), DEPLOY / "Dockerfile")


def prometheus():
    if not PROMTOOL.exists():
        raise Skip("promtool is not installed")
    run(PROMTOOL, "check", "rules", DEPLOY / "prometheus/alerts.yaml")
    run(PROMTOOL, "test", "rules", DEPLOY / "prometheus/alerts.test.yaml")
    run(PROMTOOL, "check", "config", "--syntax-only", DEPLOY / "prometheus/prometheus.yaml")
    alerts = {r["alert"] for g in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"] for r in g["rules"]}
    tests = yaml.safe_load((DEPLOY / "prometheus/alerts.test.yaml").read_text())["tests"]
    fired = {t["alertname"] for test in tests for t in test["alert_rule_test"] if t["exp_alerts"]}
    assert alerts == fired, f"alerts without a test in which they fire: {alerts - fired}"
    return f"{len(alerts)} alerts"


def unit():
    """systemd's own check, on a copy whose programs exist here."""
    command = tool("systemd-analyze")
    text = (DEPLOY / "systemd/tollgate@.service").read_text()
    text = re.sub(r"/usr/local/\S+/tollgate\S*", "/bin/true", text).replace("User=tollgate", "User=daemon")
    text = text.replace("Group=tollgate", "Group=daemon")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tollgate-check@a.service"
        path.write_text(text)
        run(command, "verify", "--man=no", path)
        score = re.search(r"exposure level.*?: ([\d.]+)", run(command, "security", "--offline=true", path))
        assert score and float(score[1]) < 2.5, f"the unit is exposed: {score and score[1]}"
    run("sh", "-n", DEPLOY / "systemd/tollgate-start")
    # The role comes from the file of variables, which wins over what the unit says.
    assert text.index("TOLLGATE_ROLE=all") < text.index("EnvironmentFile="), "the unit's own role is not first"
    example = dict(line.lstrip("#").split("=", 1) for line in (DEPLOY / "systemd/environment").read_text().splitlines()
                   if re.match(r"#?[A-Z_]+=", line))
    roles = re.findall(r"- (\w+): ", help_of(["serve"]).split("--role")[1].split("--listen")[0])
    assert example["TOLLGATE_ROLE"] in roles and len(roles) == 3, (example, roles)
    return f"exposure {score[1]} of 10"


CHECKS = [
    metrics_exist, metrics_named_elsewhere_exist, flags_exist, variables_exist, configurations_are_accepted,
    dashboards_are_current, dashboards_hold_together, database_roles, dockerfile, compose, replica_secrets, prometheus, unit, chart,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="fail where a tool is missing")
    parser.add_argument("only", nargs="*", help="names of checks")
    args = parser.parse_args()
    passed = failed = skipped = 0
    for check in CHECKS:
        if args.only and check.__name__ not in args.only:
            continue
        name = check.__name__.replace("_", " ")
        try:
            found = check()
            passed += 1
            print(f"ok       {name}" + (f" ({found})" if found else ""))
        except Skip as why:
            skipped += 1
            print(f"skipped  {name}: {why}")
        except AssertionError as error:
            failed += 1
            print(f"FAILED   {name}: {error}")
    print(f"deploy: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or (args.strict and skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
