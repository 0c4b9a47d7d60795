#!/usr/bin/env bash
# Every real client against every server, through the gateway: the embedded default with its demo server as `make run`
# starts it, then the other servers behind a route that wants a token and has a policy and limits.
#
#   tests/clients/gateway.sh [--smoke] [--out FILE]    (bench-results/clients.txt)
#
# --smoke: two clients, one of each language, against the demo server only.
# See README.md; TOLLGATE and CONFORMANCE_SERVER name other binaries than those that `cargo build` makes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/tools/gateway.sh
source "$here/../tools/gateway.sh"
out=$root/bench-results/clients.txt
clients=(py2 py1 ts2 ts1 inspector)
smoke=0
while (($# > 0)); do
  case $1 in
    --smoke)
      clients=(py2 ts2)
      smoke=1
      ;;
    --out)
      out=${2:?a file}
      shift
      ;;
    *) die "usage: gateway.sh [--smoke] [--out FILE]" ;;
  esac
  shift
done
report "$out"

failures=()

# count CLIENT SERVER FILE
count() {
  local line pass fail skip
  pass=$(grep -c '^PASS' "$3" || true)
  fail=$(grep -c '^FAIL' "$3" || true)
  skip=$(grep -c '^SKIP' "$3" || true)
  printf '%-11s %-10s %3d passed, %d failed, %d not offered by the server\n' "$2" "$1" "$pass" "$fail" "$skip"
  while read -r line; do failures+=("$2: $line"); done < <(grep '^FAIL' "$3" || true)
  [[ -s $3 ]] || failures+=("$2: $1 said nothing")
}

# one CLIENT SERVER URL: in every era that both speak, and letting the client find out.
one() {
  local eras=(--era legacy)
  case $1/$2 in
    py1/* | ts1/*) ;;
    */everything) eras+=(--era auto) ;;
    *) eras+=(--era modern --era auto) ;;
  esac
  "$here/run.sh" "$1" "$3" --server "$2" "${eras[@]}" >"$work/$2-$1" 2>&1 || true
  count "$1" "$2" "$work/$2-$1"
}

# refused NAME URL PATTERN CLIENT OPTIONS...: the client gets nowhere, and is told why.
refused() {
  local name=$1 url=$2 pattern=$3 client=$4
  shift 4
  "$here/run.sh" "$client" "$url" --only tools_list "$@" >"$work/refused" 2>&1 || true
  if grep -qiE "^FAIL .*($pattern)" "$work/refused"; then
    say "$name: $(head -n 1 "$work/refused" | cut -d: -f2- | cut -c1-160)"
  else
    failures+=("$name: expected $pattern in: $(head -n 1 "$work/refused")")
  fi
}

# A gateway of its own for each: all callers on loopback share the built-in limit by role.
for client in "${clients[@]}"; do
  start_gateway
  one "$client" demo "$MCP/mcp/demo"
  stop_gateway
done

if ((smoke == 0)); then
  python3 "$root/tests/tools/issuer.py" new "$work/issuer"
  start_server fixture
  fixture=$SERVER_URL
  start_server fixture --era modern
  modern=$SERVER_URL
  start_server everything
  everything=$SERVER_URL
  start_server fastmcp
  fastmcp=$SERVER_URL
  cat >"$work/config.yaml" <<YAML
version: 1
servers:
  - { name: fixture, http: { targets: ["$fixture"] } }
  - { name: modern, http: { targets: ["$modern"] } }
  - { name: everything, http: { targets: ["$everything"] } }
  - { name: fastmcp, http: { targets: ["$fastmcp"] } }
routes:
  - { name: fixture, servers: [fixture], limits: [by_role], policy: testers }
  - { name: modern, servers: [modern], limits: [by_role], policy: testers }
  - { name: everything, servers: [everything], limits: [by_role], policy: testers }
  - { name: fastmcp, servers: [fastmcp], limits: [by_role], policy: testers }
limits:
  - { name: by_role, key: principal, per_role: { developer: 12000/m }, burst: 2 }
policies:
  - name: testers
    rules:
      - { deny: { tools: ["delete_*"] } }
      - { allow: { roles: [developer] } }
identity:
  issuers:
    - name: test
      issuer: https://issuer.test.invalid
      audiences: ["test://gateway"]
      jwks: { file: $work/issuer/jwks.json }
      roles: { claim: groups, map: { testers: developer }, default: none }
YAML
  start_gateway "$work/config.yaml"
  MCP_TEST_TOKEN=$(python3 "$root/tests/tools/issuer.py" token "$work/issuer" --audience test://gateway --group testers)
  export MCP_TEST_TOKEN
  for server in fixture everything fastmcp; do
    for client in "${clients[@]}"; do one "$client" "$server" "$MCP/mcp/$server"; done
  done
  say
  say "where client and server share no era:"
  refused "py2, modern, of a legacy server" "$MCP/mcp/everything" 'unsupported protocol version' py2 --server everything --era modern
  refused "ts2, modern, of a legacy server" "$MCP/mcp/everything" 'unsupported protocol version' ts2 --server everything --era modern
  refused "inspector, modern, of a legacy server" "$MCP/mcp/everything" 'unsupported protocol version' inspector --server everything --era modern
  # This SDK reads no body of an error; it says the status.
  refused "py1, legacy, of a modern server" "$MCP/mcp/modern" '400 Bad Request' py1 --server fixture --era legacy
  refused "ts1, legacy, of a modern server" "$MCP/mcp/modern" 'unsupported protocol version' ts1 --server fixture --era legacy
  stop_gateway
fi

say
if ((${#failures[@]} > 0)); then
  printf '%s\n' "${failures[@]}"
  die "${#failures[@]} failed"
fi
say "all passed"
