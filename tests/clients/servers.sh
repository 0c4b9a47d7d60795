#!/usr/bin/env bash
# Starts one of the servers of the client tests on a free loopback port, prints its URL once it listens, and serves until
# it is told to stop or its time is over.
#
#   servers.sh fixture|everything|fastmcp [SECONDS] [options of the server]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=$root/.tools
node=$("$here/../tools/node.sh")
name=${1:-}
seconds=${2:-3600}
shift $(($# < 2 ? $# : 2))

die() {
  echo "servers.sh: $*" >&2
  exit 2
}

port=$("$node" -e '
  const server = require("node:net").createServer().listen(0, "127.0.0.1", () => {
    console.log(server.address().port);
    server.close();
  });')

case $name in
  fixture)
    binary=${CONFORMANCE_SERVER:-${CARGO_TARGET_DIR:-$root/target}/debug/conformance-server}
    [[ -x $binary ]] || die "there is no $binary; run cargo build -p conformance-server"
    command=("$binary" --listen "127.0.0.1:$port" --stop-after "$seconds" "$@")
    ;;
  everything)
    script=$tools/npm/node_modules/@modelcontextprotocol/server-everything/dist/index.js
    [[ -f $script ]] || die "run tests/tools/install.sh clients first"
    export PORT=$port
    command=("$node" --require "$here/../conformance/loopback.cjs" "$script" streamableHttp)
    ;;
  fastmcp)
    [[ -x $tools/fastmcp/bin/python ]] || die "run tests/tools/install.sh clients first"
    command=("$tools/fastmcp/bin/python" "$here/servers/fastmcp_server.py" "$port")
    ;;
  *) die "usage: servers.sh fixture|everything|fastmcp [SECONDS] [options of the server]" ;;
esac

# The server replaces this shell, so that the process the caller started is the one to stop.
(
  for _ in $(seq 150); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "http://127.0.0.1:$port/mcp"
      exit
    fi
    sleep 0.1
  done
  echo "servers.sh: $name does not listen" >&2
) &
exec timeout --kill-after=5 "$seconds" "${command[@]}" >&2
