#!/usr/bin/env bash
# The official conformance suite, first directly against the fixture server, then through the gateway, on a route that
# wants a token, counts requests and asks a policy. The two outcomes must be equal check by check, and equal to the
# baseline.
#
#   tests/conformance/gateway.sh [--out FOLDER]    (bench-results/conformance)
#
# See README.md; TOLLGATE and CONFORMANCE_SERVER name other binaries than those that `cargo build` makes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/tools/gateway.sh
source "$here/../tools/gateway.sh"
out=$root/bench-results/conformance
if [[ ${1:-} == --out ]]; then
  out=${2:?a folder}
fi
rm -rf "$out"
report "$out/report.txt"

# post NAME [CURL OPTIONS]: an `initialize` to the route; the status, with the header in NAME.head, the body in NAME.body.
post() {
  local name=$1
  shift
  curl -s --max-time 10 -o "$work/$name.body" -D "$work/$name.head" -w '%{http_code}' "$MCP/mcp/fixture" \
    -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' "$@"
}
initialize='{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"conformance","version":"1"}}}'

# greet NAME PERSON: a call in the modern era, where nothing comes before it.
greet() {
  post "$1" -H "authorization: Bearer $token" -H 'mcp-protocol-version: 2026-07-28' -H 'mcp-method: tools/call' \
    -H 'mcp-name: greet' -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"greet","arguments":{"name":"'"$2"'"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"conformance","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}'
}

expect() { # expect WHAT PATTERN FILE
  grep -qiE "$2" "$3" || die "$1: no $2 in $(cat "$3")"
  say "  $1"
}


say "== the fixture alone"
start_server fixture
"$here/run.sh" --url "$SERVER_URL" --out "$out/direct"

say "== the gateway: RS256 token, limits by role and by tool, policy"
python3 "$root/tests/tools/issuer.py" new "$work/issuer"
cat >"$work/config.yaml" <<YAML
version: 1
servers:
  - name: fixture
    http: { targets: ["$SERVER_URL"] }
routes:
  - { name: fixture, servers: [fixture], limits: [by_role, by_tool], policy: testers }
limits:
  - { name: by_role, key: principal, per_role: { developer: 6000/m, viewer: 60/m }, burst: 2 }
  - { name: by_tool, key: [principal, tool], rate: 50/s, burst: { tokens: 500 }, cost: { default: 0, methods: { tools/call: 1 } } }
policies:
  - name: testers
    default: deny
    rules:
      - { name: nobody-is-greeted-as-root, deny: { tools: [greet] }, when: 'has(arguments.name) && arguments.name == "root"' }
      - name: the-fixture
        allow:
          roles: [developer]
          tools: ["test_*", greet, slow_compute, confirm_delete, json_schema_2020_12_tool, failing_job, protocol_error_job, multi_input]
          prompts: ["test_*"]
          resources: ["test://*"]
      - { name: tasks, allow: { roles: [developer], methods: ["tasks/*"] } }
      - { name: log-level, allow: { roles: [developer], methods: [logging/setLevel] } }
identity:
  issuers:
    - name: test
      issuer: https://issuer.test.invalid
      jwks: { file: $work/issuer/jwks.json }
      algorithms: [RS256]
      roles: { claim: groups, map: { testers: developer }, default: none }
YAML
"$tollgate" check "$work/config.yaml"
start_gateway "$work/config.yaml"
token=$(python3 "$root/tests/tools/issuer.py" token "$work/issuer" --audience "$MCP/mcp/fixture" --group testers)

[[ $(post without -d "$initialize") == 401 ]] || die "without a token the answer is not 401: $(cat "$work/without.head")"
expect "without a token: 401 with a challenge" '^www-authenticate: Bearer .*resource_metadata=' "$work/without.head"
other=$(python3 "$root/tests/tools/issuer.py" token "$work/issuer" --audience "$MCP/mcp/other" --group testers)
[[ $(post foreign -H "authorization: Bearer $other" -d "$initialize") == 401 ]] || die "a token for another route is accepted"
say "  a token for another route: 401"
[[ $(greet ada Ada) == 200 ]] || die "with the token the answer is not 200: $(cat "$work/ada.head" "$work/ada.body")"
expect "with the token: the call runs" 'Hello, Ada!' "$work/ada.body"
expect "limits are on" '^ratelimit: "by_(role|tool)"' "$work/ada.head"
greet root root >/dev/null
expect "the policy is on: a denied call is one of an unknown tool" 'Unknown tool: greet' "$work/root.body"

MCP_TEST_TOKEN=$token "$here/run.sh" --url "$MCP/mcp/fixture" --preload "$here/token.cjs" \
  --compare "$out/direct" --out "$out/gateway"

say "== what the gateway counted"
curl -s "$ADMIN/metrics" >"$work/metrics"
if grep -E '^tollgate_limit_refusals_total\{.*\} [1-9]' "$work/metrics"; then
  die "a limit refused what the suite sent: the outcome would depend on the machine"
fi
awk '/^tollgate_requests_total/ { n += $NF } /^tollgate_policy_denials_total/ { d += $NF }
     END { printf "  %d requests, %d denied by policy, none refused by a limit\n", n, d }' "$work/metrics"
stop_gateway
say "== equal: both revisions, every check"
