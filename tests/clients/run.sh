#!/usr/bin/env bash
# Runs one client, or all of them, against an MCP endpoint; see README.md.
#
#   run.sh py2|py1|ts2|ts1|inspector|all URL [options]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$here/../../.tools
clients=(py2 py1 ts2 ts1 inspector)
export PYTHONDONTWRITEBYTECODE=1

run_one() {
  local client=$1
  shift
  case $client in
    py1 | py2)
      [[ -x $tools/$client/bin/python ]] || { echo "run.sh: run tests/tools/install.sh clients first" >&2; return 2; }
      "$tools/$client/bin/python" "$here/$client.py" "$@"
      ;;
    ts1 | ts2 | inspector)
      local node
      node=$("$here/../tools/node.sh") || return 2
      "$node" "$here/$client.mjs" "$@"
      ;;
    *)
      echo "usage: run.sh ${clients[*]} or all, then URL and options; see README.md" >&2
      return 2
      ;;
  esac
}

client=${1:-}
shift || true
if [[ $client != all ]]; then
  run_one "$client" "$@"
  exit
fi
worst=0
for each in "${clients[@]}"; do
  run_one "$each" "$@" || worst=1
done
exit $worst
