#!/usr/bin/env bash
# Installs what the conformance and client tests run against, and the linters of deploy/, into .tools/ at the root of the
# repository.
#
#   tests/tools/install.sh conformance   Node 22, the conformance suite and the JavaScript peers
#   tests/tools/install.sh clients       the same, and the Python peers
#   tests/tools/install.sh deploy        linters for Dockerfile, compose file, chart and alert rules; HAProxy and Prometheus
#
# Versions are pinned in package-lock.json and requirements-*.txt beside this script. Nothing is installed twice: each
# part leaves a stamp with the hash of its pins. Needs npm and, for `clients`, Python 3.10 or later.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$(cd "$here/../.." && pwd)/.tools
python=${PYTHON:-python3}

say() { printf 'install.sh: %s\n' "$*"; }
die() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}
need() { command -v "$1" >/dev/null || die "$1 is missing: $2"; }
pins() { cat "$@" | cksum; }
done_already() { [[ -f $1/.installed && $(<"$1/.installed") == "$2" ]]; }

install_npm() {
  local target=$tools/npm stamp
  stamp=$(pins "$here/package.json" "$here/package-lock.json")
  if done_already "$target" "$stamp"; then
    say "JavaScript peers: up to date"
    return
  fi
  need npm "install Node with npm"
  say "JavaScript peers: installing (about 350 MB)"
  mkdir -p "$target"
  rm -f "$target/.installed"
  cp "$here/package.json" "$here/package-lock.json" "$target/"
  # No install scripts: none of the packages needs one for what the tests do. Engine warnings speak of the Node that
  # runs npm, while the tests run on the Node that is being installed.
  (cd "$target" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) \
    || die "npm ci failed; is the package registry reachable?"
  "$here/node.sh" >/dev/null
  printf '%s\n' "$stamp" >"$target/.installed"
  say "JavaScript peers: done, Node $("$("$here/node.sh")" --version)"
}

install_python() {
  local name=$1 requirements=$here/requirements-$1.txt target=$tools/$1 stamp
  stamp=$(pins "$requirements")
  if done_already "$target" "$stamp"; then
    say "Python environment ($name): up to date"
    return
  fi
  need "$python" "install Python 3.10 or later, or set PYTHON"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "$python is older than 3.10"
  say "Python environment ($name): installing"
  rm -rf "$target"
  "$python" -m venv "$target" || die "cannot make a virtual environment; is the venv module installed?"
  "$target/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" \
    || die "pip failed; is the package index reachable?"
  printf '%s\n' "$stamp" >"$target/.installed"
  say "Python environment ($name): done"
}

# What comes with Debian and would start a service if it were installed is only unpacked: a folder, a program in it, packages.
install_unpacked() {
  local target=$tools/$1 program=$2
  shift 2
  [[ -x $target/$program ]] && return
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    say "${target##*/}: not on this system; what needs it is not tested"
    return
  fi
  say "${target##*/}: fetching"
  mkdir -p "$target"
  chmod 0755 "$target"
  if (cd "$target" && apt-get download -qq "$@" >/dev/null 2>&1); then
    for package in "$target"/*.deb; do dpkg-deb -x "$package" "$target"; done
  else
    say "${target##*/}: no package; what needs it is not tested"
  fi
  rm -f "$target"/*.deb
}

case ${1:-} in
  conformance) install_npm ;;
  clients)
    install_npm
    for environment in py1 py2 fastmcp; do install_python "$environment"; done
    ;;
  deploy)
    install_python deploy
    install_unpacked prometheus usr/bin/promtool prometheus
    install_unpacked haproxy usr/sbin/haproxy haproxy liblua5.3-0 libopentracing1 libopentracing-c-wrapper0
    ;;
  *)
    printf 'usage: %s conformance|clients|deploy\n' "$0" >&2
    exit 2
    ;;
esac
