#!/bin/sh
# Starts the service on this machine: a server and one worker. Submits the digits job, and prints the address of the
# page and an access token. Ctrl-C stops both; a second start continues with the same database.
#
#   sh examples/service.sh [FOLDER]      the folder of the database and the files; PORT=8080 is the port
set -eu

paceline=${PACELINE:-paceline}
folder=${1:-paceline-out/service}
port=${PORT:-8080}
here=$(dirname "$0")

mkdir -p "$folder"
storage="sqlite:///$(cd "$folder" && pwd)/service.db"
PACELINE_SERVER="http://127.0.0.1:$port"
PACELINE_TOKEN=$("$paceline" token create "service.sh" --role admin --expires 7d --storage "$storage")
export PACELINE_SERVER PACELINE_TOKEN

server= worker=
stop() {
    trap '' INT TERM
    # shellcheck disable=SC2086
    kill $worker $server 2>/dev/null || true
    wait
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# In sessions of their own, Ctrl-C reaches only this script, which then ends each of them once.
setsid "$paceline" serve --port "$port" --storage "$storage" &
server=$!
setsid "$paceline" worker --storage "$storage" --artifacts "$folder/artifacts" &
worker=$!

"$paceline" submit "$here/digits.toml" --yes
printf '\npage:  %s\ntoken: %s\n' "$PACELINE_SERVER" "$PACELINE_TOKEN"
printf '\nFor commands such as `paceline jobs` in another terminal:\n  export PACELINE_SERVER=%s PACELINE_TOKEN=%s\n' \
    "$PACELINE_SERVER" "$PACELINE_TOKEN"
printf '\nCtrl-C stops the server and the worker.\n'
wait
