#!/usr/bin/env bash
# Installs what building (and, with `test`, testing) Tollgate needs and the machine lacks.
# usage: scripts/bootstrap.sh [build|test]
set -euo pipefail

need=${1:-build}
packages=()
missing=()

want() { # want COMMAND PACKAGE...
  local command=$1
  shift
  if ! command -v "$command" >/dev/null 2>&1; then
    missing+=("$command")
    packages+=("$@")
  fi
}

want cc build-essential
want cmake cmake
want make make
if [ "$need" = test ]; then
  want python3 python3 python3-venv
  if command -v python3 >/dev/null 2>&1 && ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
    missing+=(python3-venv)
    packages+=(python3-venv)
  fi
  want npm nodejs npm
  want openssl openssl
  want curl curl ca-certificates
  # Tests run servers of their own; the packages' services stay off (see below).
  if [ ! -x "$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | head -n1)" ]; then
    missing+=(postgresql)
    packages+=(postgresql)
  fi
  if ! command -v valkey-server >/dev/null 2>&1; then
    want redis-server redis-server
  fi
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "bootstrap: cargo is missing. Install Rust 1.95 or later with rustup (https://rustup.rs), then run this again." >&2
  exit 1
fi
version=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n1.95.0\n' "$version" | sort -V | head -n1)" != 1.95.0 ]; then
  echo "bootstrap: cargo $version is too old: Tollgate needs 1.95 or later (rustup update stable)." >&2
  exit 1
fi

[ ${#packages[@]} -eq 0 ] && exit 0

echo "bootstrap: missing: ${missing[*]}"
if ! command -v apt-get >/dev/null 2>&1; then
  echo "bootstrap: this is not Debian or Ubuntu, so install these by hand, by the names your system has for them:" >&2
  printf '  %s\n' "${packages[@]}" >&2
  echo "(Fedora: dnf install gcc gcc-c++ cmake make python3 nodejs-npm openssl curl postgresql-server redis; macOS: xcode-select --install; brew install cmake node python postgresql redis)" >&2
  exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null 2>&1 || {
    echo "bootstrap: as root, run: apt-get install ${packages[*]}" >&2
    exit 1
  }
  sudo=sudo
fi
echo "bootstrap: installing ${packages[*]}"
$sudo apt-get update -qq
# PostgreSQL's and Redis's packages start a service. Tests need the programs only: no cluster is made, and where nothing
# says yet which services may start, none does.
created=()
undo() {
  for file in "${created[@]}"; do $sudo rm -f "$file"; done
}
trap undo EXIT
case " ${packages[*]} " in
  *" postgresql "* | *" redis-server "*)
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
      $sudo mkdir -p /etc/postgresql-common
      echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    if [ ! -e /usr/sbin/policy-rc.d ]; then
      created+=(/usr/sbin/policy-rc.d)
      printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
      $sudo chmod 755 /usr/sbin/policy-rc.d
    fi
    ;;
esac
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "${packages[@]}"
