#!/usr/bin/env bash
# Runs the conformance suite; `run.sh --help` lists the options. See run.mjs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
node=$("$here/../tools/node.sh")
exec "$node" "$here/run.mjs" "$@"
