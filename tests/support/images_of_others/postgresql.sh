#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# The first start makes user and database, as that of the official image does.
set -eu
data=/var/lib/postgresql/data
chown postgres "$data"
as_postgres="setpriv --reuid postgres --regid postgres --init-groups --"
if [ ! -e "$data/PG_VERSION" ]; then
    cp "$POSTGRES_PASSWORD_FILE" /tmp/password
    chown postgres /tmp/password
    $as_postgres initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile /tmp/password \
        --auth scram-sha-256 --encoding UTF8
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | $as_postgres postgres --single -D "$data" postgres
fi
exec $as_postgres postgres -D "$data" -c listen_addresses='*'
