#!/usr/bin/env bash
# Makes the secrets of the compose environment, once. What is there stays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# The folder keeps others out; the files must be readable by the users inside the containers.
mkdir -p secrets
chmod 0700 secrets
for name in admin_token grafana_password postgres_password store_password; do
  [[ -s secrets/$name ]] || head -c 24 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' >"secrets/$name"
done
# The master key seals secrets in the database. Keep a copy elsewhere: without it they cannot be read.
[[ -s secrets/store_keys ]] || printf 'k1 %s\n' "$(head -c 32 /dev/urandom | base64 -w0)" >secrets/store_keys
[[ -e secrets/api_keys ]] || : >secrets/api_keys
chmod 0444 secrets/*
echo "secrets: in $PWD/secrets"
