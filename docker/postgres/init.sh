#!/bin/sh
# Runs once, when the database is made. Two databases; each role can do what its service needs:
#   clr_registry  owner of MLflow's tables in the database clr
#   clr_ledger    owner of the ledger there, in a schema of its own; only the registry has it
#   clr_append    reads the ledger and adds to it: release service and workers
#   clr_prefect   owner of the database prefect
set -eu

psql -v ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\set registry `cat /run/secrets/postgres.registry`
\set ledger `cat /run/secrets/postgres.ledger`
\set append `cat /run/secrets/postgres.append`
\set prefect `cat /run/secrets/postgres.prefect`
CREATE ROLE clr_registry LOGIN PASSWORD :'registry';
CREATE ROLE clr_ledger LOGIN PASSWORD :'ledger';
CREATE ROLE clr_append LOGIN PASSWORD :'append';
CREATE ROLE clr_prefect LOGIN PASSWORD :'prefect';
CREATE DATABASE clr OWNER clr_registry;
CREATE DATABASE prefect OWNER clr_prefect;
REVOKE ALL ON DATABASE clr, prefect, postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE clr TO clr_ledger, clr_append;
ALTER ROLE clr_ledger IN DATABASE clr SET search_path = ledger;
ALTER ROLE clr_append IN DATABASE clr SET search_path = ledger;
\connect clr
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO clr_registry;
CREATE SCHEMA ledger AUTHORIZATION clr_ledger;
GRANT USAGE ON SCHEMA ledger TO clr_append;
ALTER DEFAULT PRIVILEGES FOR ROLE clr_ledger IN SCHEMA ledger
    GRANT SELECT, INSERT ON TABLES TO clr_append;
\connect prefect
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO clr_prefect;
CREATE EXTENSION IF NOT EXISTS pg_trgm;
SQL
