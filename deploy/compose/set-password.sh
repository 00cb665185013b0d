#!/bin/sh
# Gives the database the password of the secrets; runs in its container:
#   docker compose exec -T postgres sh -s <deploy/compose/set-password.sh
set -e
exec psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" \
  --set=password="$(cat "$POSTGRES_PASSWORD_FILE")" --set=user="$POSTGRES_USER" <<'SQL'
SET log_statement = 'none';
ALTER ROLE :"user" PASSWORD :'password';
SQL
