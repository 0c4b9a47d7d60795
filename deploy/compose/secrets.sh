#!/usr/bin/env bash
# Makes the secrets of the compose environment: passwords, tokens, keys, and the authority that signs replicas and nobody else.
# What is there stays; certificates that end within 30 days are made anew. Names of further replicas may be given:
#
#   deploy/compose/secrets.sh tollgate-3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# The folder keeps others out; the files must be readable by the users inside the containers.
umask 077
mkdir -p secrets
chmod 0700 secrets
cd secrets

random() { head -c "$1" /dev/urandom | base64 | tr -d '\n'; }
missing() { [[ ! -s $1 ]]; }
# A file is there whole or not at all.
keep() { cat >"$1.new" && chmod "${2:-0444}" "$1.new" && mv -f "$1.new" "$1"; }

for name in admin_token grafana_password metrics_token postgres_password store_password valkey_password; do
  if missing "$name"; then random 24 | tr '+/' '-_' | keep "$name"; fi
done
# The master key seals secrets in the database. Keep a copy elsewhere: without it they cannot be read.
if missing store_keys; then printf 'k1 %s\n' "$(random 32)" | keep store_keys; fi

if ! command -v openssl >/dev/null; then
  echo "secrets.sh: openssl is missing (apt-get install openssl, apk add openssl, …)." >&2
  echo "secrets.sh: passwords and keys are made; certificates of replicas are not, and they do not start without. Run it again." >&2
  exit 1
fi

config=$(mktemp)
trap 'rm -f "$config" ./*.new' EXIT
cat >"$config" <<END
[req]
distinguished_name = name
prompt = no
[name]
CN = \${ENV::NAME}
[authority]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[replica]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:\${ENV::NAME}
authorityKeyIdentifier = keyid
END
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256; }
ends_soon() { ! openssl x509 -in "$1" -noout -checkend 2592000 >/dev/null 2>&1; }

# Its key is never mounted. Whoever has it can make replicas, and those see every tenant's sessions.
if missing replicas_ca_key || missing replicas_ca; then
  key | keep replicas_ca_key 0400
  NAME="Tollgate replicas" openssl req -x509 -new -config "$config" -extensions authority -key replicas_ca_key -days 3650 | keep replicas_ca
  rm -f ./*_cert
fi
for replica in control tollgate-1 tollgate-2 "$@"; do
  if missing "${replica}_cert" || missing "${replica}_key" || ends_soon "${replica}_cert"; then
    key | keep "${replica}_key"
    NAME=$replica openssl req -new -config "$config" -key "${replica}_key" \
      | NAME=$replica openssl x509 -req -CA replicas_ca -CAkey replicas_ca_key -set_serial "0x$(openssl rand -hex 16)" \
        -extfile "$config" -extensions replica -days 730 2>/dev/null | keep "${replica}_cert"
  fi
done
echo "secrets: in $PWD"
