#!/bin/sh
# Runs once, when the database is made: what `tollgate migrate roles` prints, with a password. The role that the replicas
# log in with is neither a superuser nor may it pass row-level security.
set -eu
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
  --set=password="$(cat /run/secrets/store_password)" <<'SQL'
CREATE ROLE tollgate_tenant NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB;
CREATE ROLE tollgate_platform NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB;
CREATE ROLE "tollgate" LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB;
ALTER ROLE "tollgate" PASSWORD :'password';
GRANT tollgate_tenant, tollgate_platform TO "tollgate";
CREATE DATABASE "tollgate" OWNER "tollgate";
SQL
