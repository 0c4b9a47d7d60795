#!/usr/bin/env bash
# Prints the path of a Node of version 22 or later: the installed one, else the one in PATH.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
minimum=22

major() { "$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }

for candidate in "$root"/.tools/npm/node_modules/node-*/bin/node "$(command -v node || true)"; do
  if [[ -x $candidate ]] && (($(major "$candidate") >= minimum)); then
    printf '%s\n' "$candidate"
    exit 0
  fi
done
echo "node.sh: no Node $minimum or later; run tests/tools/install.sh, or install Node for this platform" >&2
exit 1
