#!/usr/bin/env python3
"""Writes the dashboards in deploy/grafana/dashboards. With --check: says whether they are what this would write.

Panels are one line each here, and forty each in Grafana's JSON.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH = 24
HEIGHT = 8
# What the variables at the top of a dashboard choose.
BY_TENANT = 'instance=~"$instance",tenant=~"$tenant"'
BY_ROUTE = 'instance=~"$instance",tenant=~"$tenant",route=~"$route"'
BY_INSTANCE = 'instance=~"$instance"'


def graph(title, unit, *queries, stack=False, description=""):
    """Lines over time. A query is (expression, legend)."""
    return {
        "type": "timeseries", "title": title, "description": description, "span": 8,
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {
                "fillOpacity": 20 if stack else 5, "stacking": {"mode": "normal" if stack else "none"},
                "showPoints": "never"}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "queries": queries,
    }


def stat(title, unit, expression, *, bad=None, low_is_bad=False, description=""):
    """One number; red beyond `bad`."""
    steps = [{"color": "green", "value": None}]
    if bad is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": bad}] if low_is_bad else \
            steps + [{"color": "red", "value": bad}]
    return {
        "type": "stat", "title": title, "description": description, "span": 4,
        "fieldConfig": {"defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value"},
        "queries": [(expression, "")],
    }


def table(title, expression, columns, *, unit="short"):
    """The values of now, one row per label set."""
    keep = {name: index for index, name in enumerate([*columns, "Value"])}
    return {
        "type": "table", "title": title, "description": "", "span": 12,
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "options": {"showHeader": True, "sortBy": [{"displayName": "Value", "desc": True}]},
        "transformations": [
            {"id": "filterFieldsByName", "options": {"include": {"names": list(keep)}}},
            {"id": "organize", "options": {"indexByName": keep}},
        ],
        "queries": [(expression, "")], "instant": True,
    }


def quantiles(metric, labels, by, *shown):
    """Queries for quantiles of a histogram."""
    return [
        (f"histogram_quantile({q}, sum by (le{', ' + by if by else ''}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))",
         f"p{str(q)[2:]}" + (f" {{{{{by}}}}}" if by else ""))
        for q in shown
    ]


def variable(name, query, label):
    """A choice of label values."""
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
        "definition": query, "includeAll": True, "multi": True, "allValue": ".*", "refresh": 2, "sort": 1,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def dashboard(uid, title, variables, rows):
    """Lays panels out, left to right, row by row."""
    panels, number, y = [], 0, 0

    def place(panel, x):
        nonlocal number
        number += 1
        instant = panel.pop("instant", False)
        queries, span = panel.pop("queries"), panel.pop("span")
        panel["id"] = number
        panel["datasource"] = SOURCE
        panel["gridPos"] = {"h": 4 if panel["type"] == "stat" else HEIGHT, "w": span, "x": x, "y": y}
        panel["targets"] = [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend or "__auto",
             **({"instant": True, "range": False, "format": "table"} if instant else {"range": True})}
            for index, (expression, legend) in enumerate(queries)
        ]
        panels.append(panel)

    for heading, row in rows:
        number += 1
        panels.append({"id": number, "type": "row", "title": heading, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y}})
        y += 1
        x = high = 0
        for panel in row:
            if x + panel["span"] > WIDTH:
                x, y = 0, y + high
                high = 0
            high = max(high, 4 if panel["type"] == "stat" else HEIGHT)
            x += panel["span"]
            place(panel, x - panel["span"])
        y += high
    source = {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus",
              "current": {"selected": False, "text": "Prometheus", "value": "prometheus"}}
    return {
        "uid": uid, "title": title, "tags": ["tollgate"], "schemaVersion": 39, "version": 1, "editable": True,
        "timezone": "browser", "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "graphTooltip": 1,
        "templating": {"list": [source, *variables]}, "annotations": {"list": []}, "links": [], "panels": panels,
    }


def rate(metric, labels, by):
    """A counter per second."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


INSTANCE = variable("instance", "label_values(tollgate_build_info, instance)", "Replica")
TENANT = variable("tenant", "label_values(tollgate_requests_total, tenant)", "Tenant")
ROUTE = variable("route", 'label_values(tollgate_requests_total{tenant=~"$tenant"}, route)', "Route")
FAILED = 'outcome=~"upstream_.*|timeout|internal|overload"'

TRAFFIC = dashboard("tollgate-traffic", "Tollgate: traffic", [INSTANCE, TENANT, ROUTE], [
    ("Now", [
        stat("Requests", "reqps", f"sum(rate(tollgate_requests_total{{{BY_ROUTE}}}[$__rate_interval]))"),
        stat("Failing", "percentunit",
             f"sum(rate(tollgate_requests_total{{{BY_ROUTE},{FAILED}}}[$__rate_interval])) "
             f"/ sum(rate(tollgate_requests_total{{{BY_ROUTE}}}[$__rate_interval]))", bad=0.01,
             description="Failures of servers or of the gateway; refusals by policy or limit do not count."),
        stat("Gateway's own time, p99", "s", quantiles("tollgate_gateway_seconds", BY_ROUTE, "", 0.99)[0][0], bad=0.01),
        stat("Sessions", "short", f"sum(tollgate_sessions{{{BY_INSTANCE}}})"),
        stat("Streams", "short", f"sum(tollgate_streams{{{BY_ROUTE}}})"),
        stat("Targets without traffic", "short", f"count(tollgate_target_healthy{{{BY_TENANT}}} == 0) or vector(0)", bad=1),
    ]),
    ("Requests", [
        graph("By outcome", "reqps", (rate("tollgate_requests_total", BY_ROUTE, "outcome"), "{{outcome}}"), stack=True),
        graph("By route", "reqps", (rate("tollgate_requests_total", BY_ROUTE, "tenant, route"), "{{tenant}} {{route}}")),
        graph("By method", "reqps", (rate("tollgate_requests_total", BY_ROUTE, "method"), "{{method}}"), stack=True),
        graph("What clients wait", "s", *quantiles("tollgate_request_seconds", BY_ROUTE, "", 0.5, 0.95, 0.99)),
        graph("The gateway's own share", "s", *quantiles("tollgate_gateway_seconds", BY_ROUTE, "", 0.5, 0.95, 0.99)),
        graph("Open", "short", (f"sum by (route) (tollgate_streams{{{BY_ROUTE}}})", "streams {{route}}"),
              (f"sum(tollgate_sessions{{{BY_INSTANCE}}})", "sessions"),
              (f"sum(tollgate_connections{{{BY_INSTANCE}}})", "connections")),
    ]),
    ("Refused", [
        graph("Credentials", "reqps", (rate("tollgate_auth_failures_total", BY_TENANT, "tenant, reason"), "{{tenant}} {{reason}}")),
        graph("Policy", "reqps", (rate("tollgate_policy_denials_total", BY_ROUTE, "tenant, route"), "{{tenant}} {{route}}")),
        graph("Limits", "reqps", (rate("tollgate_limit_refusals_total", BY_ROUTE, "tenant, route, limit"), "{{route}} {{limit}}"),
              (rate("tollgate_limit_fallbacks_total", BY_ROUTE, "tenant, route, limit"), "without its server: {{route}} {{limit}}")),
    ]),
    ("Servers", [
        graph("Errors", "reqps", (rate("tollgate_upstream_errors_total", BY_TENANT, "tenant, server, kind"), "{{server}} {{kind}}")),
        graph("Second attempts", "reqps", (rate("tollgate_retries_total", BY_TENANT, "tenant, server"), "{{server}}")),
        graph("Exchanges in flight", "short",
              (f"sum by (server, target) (tollgate_target_in_flight{{{BY_TENANT}}})", "{{server}} {{target}}")),
        table("Targets that take no traffic", f"count by (tenant, server, target) (tollgate_target_healthy{{{BY_TENANT}}} == 0)",
              ["tenant", "server", "target"]),
        table("Slowest tools, p95", "topk(20, " + quantiles("tollgate_tool_seconds", BY_TENANT, "tenant, server, tool", 0.95)[0][0] + ")",
              ["tenant", "server", "tool"], unit="s"),
        graph("Ejections", "reqps", (rate("tollgate_target_ejections_total", BY_TENANT, "server, target"), "{{server}} {{target}}")),
    ]),
])

FLEET = dashboard("tollgate-fleet", "Tollgate: fleet", [INSTANCE], [
    ("Now", [
        stat("Replicas", "short", 'count(up{job="tollgate"} == 1) or vector(0)', bad=1, low_is_bad=True),
        stat("Down", "short", 'count(up{job="tollgate"} == 0) or vector(0)', bad=1),
        stat("Versions", "short", "count(count by (version) (tollgate_build_info))", bad=2,
             description="More than one while an upgrade is rolling."),
        stat("Older configuration than given", "short", "count(tollgate_config_reload_success == 0) or vector(0)", bad=1),
        stat("Audit backlog", "short", f"sum(tollgate_audit_backlog{{{BY_INSTANCE}}})"),
        stat("Oldest keys of an issuer", "s", "max(tollgate_jwks_age_seconds) or vector(0)", bad=3600),
    ]),
    ("Configuration", [
        graph("Revision in force", "short", (f"tollgate_config_revision{{{BY_INSTANCE}}}", "{{instance}}")),
        graph("Attempts to load", "short",
              (f"sum by (instance, outcome) (increase(tollgate_config_reloads_total{{{BY_INSTANCE}}}[5m]))", "{{instance}} {{outcome}}")),
        graph("Age of issuers' keys", "s", (f"max by (issuer) (tollgate_jwks_age_seconds{{{BY_INSTANCE}}})", "{{issuer}}")),
    ]),
    ("Shared limits", [
        graph("Server reached", "short", (f"tollgate_limit_server_up{{{BY_INSTANCE}}}", "{{instance}}"),
              description="0 for replicas without such a server, and for control planes, too."),
        graph("Trips", "reqps", (rate("tollgate_limit_trips_total", BY_INSTANCE, "instance, outcome"), "{{outcome}} {{instance}}"),
              description="Each fetches tokens for many calls."),
        graph("Decided without it", "reqps",
              (rate("tollgate_limit_fallbacks_total", BY_INSTANCE, "tenant, route, limit"), "{{tenant}} {{route}} {{limit}}"),
              description="Calls for which a limit's fail decided."),
    ]),
    ("Audit", [
        graph("Size of the spool", "bytes", (f"tollgate_audit_spool_bytes{{{BY_INSTANCE}}}", "{{instance}}")),
        graph("Refused or lost for want of room", "reqps",
              (f"rate(tollgate_audit_refused_total{{{BY_INSTANCE}}}[$__rate_interval])", "refused {{instance}}"),
              (f"rate(tollgate_audit_dropped_total{{{BY_INSTANCE}}}[$__rate_interval])", "lost {{instance}}")),
        graph("Events that are not in the store yet", "short", (f"tollgate_audit_backlog{{{BY_INSTANCE}}}", "{{instance}}")),
    ]),
    ("Logs", [
        graph("Lines and spans lost", "short",
              (f"increase(tollgate_access_log_dropped_total{{{BY_INSTANCE}}}[5m])", "access log {{instance}}"),
              (f"increase(tollgate_trace_spans_dropped_total{{{BY_INSTANCE}}}[5m])", "spans {{instance}}"),
              (f"increase(tollgate_log_lines_suppressed_total{{{BY_INSTANCE}}}[5m])", "log {{instance}}")),
        graph("Label values counted as other", "short",
              (f"sum by (label) (increase(tollgate_label_overflow_total{{{BY_INSTANCE}}}[5m]))", "{{label}}")),
    ]),
    ("Processes", [
        graph("Processor", "percentunit", (f"rate(tollgate_process_cpu_seconds_total{{{BY_INSTANCE}}}[$__rate_interval])", "{{instance}}"),
              description="1 = one core."),
        graph("Memory", "bytes", (f"tollgate_process_resident_memory_bytes{{{BY_INSTANCE}}}", "resident {{instance}}"),
              (f"tollgate_process_virtual_memory_bytes{{{BY_INSTANCE}}}", "mapped {{instance}}")),
        graph("File descriptors", "percentunit",
              (f"tollgate_process_open_fds{{{BY_INSTANCE}}} / tollgate_process_max_fds{{{BY_INSTANCE}}}", "{{instance}}")),
        graph("Threads", "short", (f"tollgate_process_threads{{{BY_INSTANCE}}}", "{{instance}}")),
        graph("Up since", "s", (f"time() - tollgate_process_start_time_seconds{{{BY_INSTANCE}}}", "{{instance}}")),
        graph("Connections", "short", (f"tollgate_connections{{{BY_INSTANCE}}}", "{{instance}}")),
    ]),
])


def main():
    stale = []
    for name, content in (("traffic", TRAFFIC), ("fleet", FLEET)):
        path = HERE / "dashboards" / f"{name}.json"
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path))
        else:
            path.write_text(text)
    for path in stale:
        print(f"{path} is out of date: run deploy/grafana/build.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
