# shellcheck shell=bash
# Sourced by the scripts that test through a running gateway. Starts it and the servers behind it on free loopback
# ports, and stops what it started when the script ends, however it ends.
#
#   start_server NAME [OPTIONS]   sets SERVER_URL; NAME as in tests/clients/servers.sh
#   start_gateway [CONFIG]        sets MCP and ADMIN, both http://127.0.0.1:PORT; without CONFIG the embedded default
#   stop_gateway                  ends it with SIGTERM; fails if it does not end cleanly
#   report FILE                   from here on, what the script says goes to FILE as well
#
# TOLLGATE and CONFORMANCE_SERVER name other binaries than those that `cargo build` makes.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
tollgate=${TOLLGATE:-$target/debug/tollgate}
export CONFORMANCE_SERVER=${CONFORMANCE_SERVER:-$target/debug/conformance-server}
work=$(mktemp -d)
started=()
gateway=
reporter=
# Whatever a test does, nothing of it runs longer than this.
longest=1800

say() { printf '%s\n' "$*"; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

end_started() {
  local status=$? pid
  trap - EXIT
  for pid in ${gateway:+"$gateway"} "${started[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  if ((status != 0)) && [[ -s $work/gateway.log ]]; then
    say "the last lines of the gateway's log:" >&2
    tail -n 20 "$work/gateway.log" >&2
  fi
  rm -rf "$work"
  if [[ -n $reporter ]]; then
    exec >&-
    wait "$reporter" 2>/dev/null || true
  fi
  exit "$status"
}
trap end_started EXIT
trap 'exit 130' INT TERM

report() {
  mkdir -p "$(dirname "$1")"
  exec > >(exec tee "$1")
  reporter=$!
}

# wait_for FILE PATTERN PID: prints the first line of FILE that matches, once there is one; fails if PID ends first.
wait_for() {
  local tries=600
  while ((tries-- > 0)); do
    grep -m1 -E "$2" "$1" 2>/dev/null && return
    kill -0 "$3" 2>/dev/null || return
    sleep 0.05
  done
  return 1
}

start_server() {
  local name=$1 output
  shift
  output=$(mktemp "$work/server.XXXXXX")
  "$root/tests/clients/servers.sh" "$name" "$longest" "$@" >"$output" 2>"$output.log" &
  started+=("$!")
  # shellcheck disable=SC2034 # for the script that sources this
  SERVER_URL=$(wait_for "$output" '^http://' "${started[-1]}") || {
    tail -n 20 "$output.log" >&2
    die "the server $name did not start"
  }
}

start_gateway() {
  [[ -x $tollgate ]] || die "there is no $tollgate; build it first"
  : >"$work/gateway.log"
  NO_COLOR=1 timeout --kill-after=10 "$longest" "$tollgate" serve ${1:+--config "$1"} \
    --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir "$work/data" >"$work/access.log" 2>"$work/gateway.log" &
  gateway=$!
  local line
  line=$(wait_for "$work/gateway.log" 'event="?started' "$gateway") || die "the gateway did not start"
  # shellcheck disable=SC2034 # for the script that sources this
  MCP=http://$(sed -E 's/.* mcp=([^ ]+).*/\1/' <<<"$line")
  ADMIN=http://$(sed -E 's/.* admin=([^ ]+).*/\1/' <<<"$line")
  local tries=200
  until [[ $(curl -s -o "$work/readyz" -w '%{http_code}' "$ADMIN/readyz") == 200 ]]; do
    ((tries-- > 0)) || die "the gateway is not ready: $(cat "$work/readyz")"
    sleep 0.05
  done
}

stop_gateway() {
  local pid=$gateway
  gateway=
  kill "$pid"
  wait "$pid" || die "the gateway did not end cleanly"
}
