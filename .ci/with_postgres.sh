#!/bin/sh
# Starts a PostgreSQL server of its own on a free loopback port, runs a command with
# PACELINE_TEST_POSTGRES_URL naming it, stops the server whatever happens, and ends as the command did.
#
#   .ci/with_postgres.sh pytest tests/storage
#   .ci/with_postgres.sh --if-installed pytest    # runs the command without a server where there is none
#
# Needs initdb, postgres, pg_ctl and pg_isready: on the PATH, in PG_BIN, or where Debian puts
# them. As root the server runs as the user postgres, since it refuses to run as root.
set -eu

is_optional=
if [ "${1:-}" = --if-installed ]; then
    is_optional=yes
    shift
fi
if [ "$#" -eq 0 ]; then
    echo "usage: $0 [--if-installed] COMMAND [ARGUMENT...]" >&2
    exit 2
fi

find_binaries() {
    if [ -n "${PG_BIN:-}" ]; then
        echo "$PG_BIN"
    elif command -v initdb >/dev/null 2>&1; then
        # Links on the PATH need not cover every tool: follow them to where all are.
        dirname "$(readlink -f "$(command -v initdb)")"
    else
        for folder in /usr/lib/postgresql/*/bin; do
            if [ -x "$folder/initdb" ]; then echo "$folder"; fi
        done | sort -V | tail -n 1
    fi
}

binaries=$(find_binaries)
for tool in initdb postgres pg_ctl pg_isready; do
    if [ ! -x "$binaries/$tool" ]; then
        if [ -n "$is_optional" ]; then exec "$@"; fi
        echo "$0: no $tool in '$binaries'; install PostgreSQL (apt-get install postgresql) or set PG_BIN" >&2
        exit 1
    fi
done

as_server() {
    if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

folder=$(mktemp -d)
if [ "$(id -u)" -eq 0 ]; then chown postgres "$folder"; fi
started_in=$PWD
server=

stop() {
    cd "$folder"
    if [ -n "$server" ]; then
        as_server "$binaries/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
        wait "$server" 2>/dev/null || true
    fi
    cd /
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# The server is a child of this script, not a daemon, so that it is waited for and nothing stays.
start() {
    port=$(free_port)
    as_server "$binaries/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c fsync=off >"$folder/server.log" 2>&1 &
    server=$!
    for _ in $(seq 300); do
        if "$binaries/pg_isready" -q -h 127.0.0.1 -p "$port" -U paceline -d postgres; then return 0; fi
        if ! kill -0 "$server" 2>/dev/null; then return 1; fi
        sleep 0.1
    done
    echo "$0: the server did not answer within 30 s" >&2
    cat "$folder/server.log" >&2
    exit 1
}

cd "$folder"
as_server "$binaries/initdb" -D "$folder/data" -U paceline --auth=trust --no-sync -E UTF8 --locale=C \
    >"$folder/initdb.log"
# Another process may take the port in between: try again on another one.
start || start || { cat "$folder/server.log" >&2; exit 1; }

cd "$started_in"
export PACELINE_TEST_POSTGRES_URL="postgresql://paceline@127.0.0.1:$port/postgres"
status=0
"$@" || status=$?
exit "$status"
