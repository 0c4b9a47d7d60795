"""Checks of the Helm chart: it lints, what it renders is valid, and what refers to each other fits."""

import re

import yaml

from common import DEPLOY, Skip, check_configuration

KUBERNETES = ["1.30.0", "1.34.0"]
# Sets of values that the chart is rendered with, beside its defaults.
VALUES = DEPLOY / "helm/ci"
# What it must not render with, and a part of why.
REFUSED = {
    "roles: none": "neither separate nor all",
    "config: { routes: [] }": "documents are in the store",
    "config: { identity: { api_keys: true } }": "documents are in the store",
}


def chart():
    try:
        import helm_python.chart as helm
        import helm_python.errors
        import kubernetes_validate
    except ImportError as error:
        raise Skip(f"{error.name} is not installed") from error
    path = DEPLOY / "helm/tollgate"
    copy = (path / "alerts.yaml").read_text() == (DEPLOY / "prometheus/alerts.yaml").read_text()
    assert copy, "the chart's alerts are not those of deploy/prometheus: cp deploy/prometheus/alerts.yaml deploy/helm/tollgate"
    sets = {p.stem: yaml.safe_load(p.read_text()) for p in sorted(VALUES.glob("*.yaml"))}
    assert len(sets) >= 2
    sets["default"] = {}
    for values, why in REFUSED.items():
        try:
            helm.Chart.load(str(path)).render(yaml.safe_load(values), name="gw", namespace="mcp")
        except helm_python.errors.HelmRenderError as error:
            assert why in str(error), error
        else:
            raise AssertionError(f"the chart renders with {values}")
    manifests = 0
    for name, values in sets.items():
        report = helm.lint(str(path), values, strict=True)
        bad = [m for m in report["messages"] if m["severity"] >= 2]
        assert not bad and not report["errors"], f"{name}: {bad}{report['errors']}"
        rendered = helm.Chart.load(str(path)).render(values, name="gw", namespace="mcp", is_install=True)
        for template, text in rendered.items():
            if template.endswith("NOTES.txt"):
                continue
            for document in yaml.safe_load_all(text):
                if not document:
                    continue
                manifests += 1
                if document["apiVersion"].startswith("monitoring.coreos.com"):
                    continue
                for version in KUBERNETES:
                    try:
                        kubernetes_validate.validate(document, version, strict=True)
                    except kubernetes_validate.ValidationError as error:
                        raise AssertionError(f"{name}: {template}: {list(error.path)}: {error.message}") from error
                for key, content in (document.get("data") or {}).items():
                    if key.endswith("tollgate.yaml"):
                        check_configuration(content, f"{name}: {template}")
        chart_facts(name, rendered)
    return f"{len(sets)} sets of values, {manifests} manifests"


def chart_facts(name, rendered):
    """What no schema says: names that refer to each other do, containers are locked down, and each plane has what it needs."""
    documents = [d for t, text in rendered.items() if not t.endswith("NOTES.txt") for d in yaml.safe_load_all(text) if d]
    made = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    assert len(made) == len(documents), f"{name}: two manifests have one name"
    pods = [d["spec"]["template"] for d in documents if d["kind"] in ("StatefulSet", "Job")]
    roles = {}
    for document in documents:
        kind, spec = document["kind"], document.get("spec", {})
        if kind in ("StatefulSet", "Deployment", "Job"):
            workload(f"{name}: {document['metadata']['name']}", spec, made)
        if kind == "StatefulSet":
            roles[spec["template"]["metadata"]["labels"]["app.kubernetes.io/component"]] = set_of_replicas(name, document, made)
        if kind == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            own = made[target["kind"], target["name"]]["spec"]
            assert target["name"].endswith("-data") and "replicas" not in own, f"{name}: two say how many there are"
        if kind == "Service":
            ports = [{p["name"] for c in pod["spec"]["containers"] for p in c.get("ports", [])} for pod in pods if selects(spec["selector"], pod)]
            wanted = {port["targetPort"] for port in spec["ports"]}
            assert ports and all(wanted <= there for there in ports), f"{name}: {document['metadata']['name']} leads nowhere"
    assert roles in ({"data": "all"}, {"data": "data", "control": "control"}), f"{name}: {roles}"
    policies(name, [d["spec"] for d in documents if d["kind"] == "NetworkPolicy"], pods)


def selects(labels, pod):
    return labels.items() <= pod["metadata"]["labels"].items()


def workload(name, spec, made):
    pod = spec["template"]["spec"]
    assert selects(spec.get("selector", {}).get("matchLabels", {}), spec["template"]), f"{name} does not select its own pods"
    assert pod["securityContext"]["runAsNonRoot"], f"{name} may run as root"
    there = {v["name"] for v in pod.get("volumes", [])} | {v["metadata"]["name"] for v in spec.get("volumeClaimTemplates", [])}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and context["capabilities"]["drop"] == ["ALL"], name
        mounts = {m["name"] for m in container["volumeMounts"]}
        assert mounts <= there, f"{name} mounts {mounts - there}"
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in made, f"{name}: {volume}"


def set_of_replicas(name, document, made):
    """A set of replicas; gives its role."""
    own, spec = document["metadata"]["name"], document["spec"]
    assert ("Service", spec["serviceName"]) in made, f"{name}: no service {spec['serviceName']}"
    assert any(k == "PodDisruptionBudget" and selects(d["spec"]["selector"]["matchLabels"], spec["template"])
               for (k, _), d in made.items()), f"{name}: {own} has no disruption budget"
    container = spec["template"]["spec"]["containers"][0]
    assert {m["mountPath"] for m in container["volumeMounts"] if m["name"] == "data"} == {"/var/lib/tollgate"}, own
    assert spec["volumeClaimTemplates"][0]["metadata"]["name"] == "data", f"{name}: {own} has no volume for its spool"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin", f"{name}: {own}"
    role = container["args"][2]
    written = next(d for (k, n), d in made.items() if k == "ConfigMap" and not n.endswith("-migrate"))["data"]["tollgate.yaml"]
    scheme = "HTTPS" if "tls" in yaml.safe_load(written)["listeners"]["admin"] else "HTTP"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"].get("scheme", "HTTP")
        assert asked == scheme, f"{name}: {own}: {probe} asks with {asked}, the admin listener speaks {scheme}"
    ports = {port["name"] for port in container["ports"]}
    assert ("mcp" in ports) == (role != "control"), f"{name}: {own} has {ports}"
    variables = {variable["name"] for variable in container["env"]}
    configuration = next(d for (k, n), d in made.items() if k == "ConfigMap" and not n.endswith("-migrate"))["data"]["tollgate.yaml"]
    named = set(re.findall(r"\$\{env:(\w+)\}", configuration)) | set(re.findall(r"key_env: (\w+)", configuration))
    assert named <= variables, f"{name}: {own} lacks {named - variables}"
    places = [m["mountPath"] for m in container["volumeMounts"]]
    for path in re.findall(r": (/etc/tollgate/\S+)", configuration):
        assert any(path.startswith(place) for place in places), f"{name}: {own} lacks {path}"
    if "internal" in ports:
        advertise = next(v["value"] for v in container["env"] if v["name"] == "TOLLGATE_ADVERTISE")
        # With a name for all certificates the address has to be one that needs no look-up.
        by_address = "name: tollgate-replica" in configuration
        wanted = "$(POD_IP):7946" if by_address else f"$(POD_NAME).{own}.mcp.svc:7946"
        assert advertise == wanted and ("POD_IP" if by_address else "POD_NAME") in variables, advertise
    return role


def policies(name, found, pods):
    """Every pod is under a policy; the internal listener is for replicas, and they may go there."""
    if not found:
        return
    for pod in pods:
        own = [p for p in found if selects(p["podSelector"]["matchLabels"], pod)]
        assert len(own) == 1, f"{name}: {len(own)} policies for {pod['metadata']['labels']}"
        ports = {p["name"] for c in pod["spec"]["containers"] for p in c.get("ports", [])}
        let_in = {port["port"] for rule in own[0].get("ingress", []) for port in rule["ports"]}
        assert let_in == ports, f"{name}: ports are {ports}, let in are {let_in}"
        for rule in own[0].get("ingress", []):
            if {"port": "internal"} in rule["ports"]:
                assert all(set(peer) == {"podSelector"} for peer in rule["from"]), f"{name}: {rule}"
        if "internal" in ports:
            assert any({"port": 7946} in rule.get("ports", []) for rule in own[0]["egress"]), f"{name}: replicas do not reach each other"
