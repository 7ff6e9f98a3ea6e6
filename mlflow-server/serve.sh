#!/usr/bin/env bash
# An MLflow server with PostgreSQL and an artifact folder, all below one folder; Ctrl-C or SIGTERM stops both.
#   serve.sh [--folder runs/mlflow-server] [--port 5000] [--workers 2] [-- more options of `mlflow server`]
# Where it listens otherwise: serve.sh -- --host 0.0.0.0 --allowed-hosts NAME; docs/mlflow-server.md has the rest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=runs/mlflow-server port=5000 workers=2

die() {
    echo "serve.sh: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --folder | --port | --workers)
            [ $# -ge 2 ] || die "$1 needs a value"
            printf -v "${1#--}" %s "$2"
            shift 2 ;;
        --) shift; break ;;
        *) die "unknown option '$1'; expected --folder, --port, --workers, or -- and options of mlflow server" ;;
    esac
done
[[ $port =~ ^[0-9]+$ ]] || die "--port $port: expected a number"
[[ $workers =~ ^[1-9][0-9]*$ ]] || die "--workers $workers: expected a number from 1 on"
python=${PYTHON:-python3}
"$python" -c 'from importlib.util import find_spec as f; import sys; sys.exit(not (f("mlflow") and f("psycopg")))' ||
    die "$python has no mlflow or no psycopg; make setup installs both, then: PYTHON=.venv/bin/python $0"
"$here/postgres.sh" check
folder=$(realpath -m "$folder")
mkdir -p "$folder/artifacts"

exec 9>"$folder/.lock"
flock --nonblock 9 || die "a server runs in $folder already: $(cat "$folder/address" 2>/dev/null || echo starting)"
"$python" - "$port" <<'PY' || die "port $port is taken; --port names another"
import socket, sys
probe = socket.socket()
probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    probe.bind(("127.0.0.1", int(sys.argv[1])))
except (OSError, OverflowError):
    sys.exit(1)
PY

server='' stopping=''
stop() {
    [ -z "$stopping" ] || return 0
    stopping=yes
    trap '' INT TERM HUP
    echo "stopping"
    if [ -n "$server" ] && kill -TERM -- "-$server" 2>/dev/null; then
        timeout 10 tail -s 0.1 --pid "$server" -f /dev/null 9>&- || true
        # Whoever is left of its workers.
        kill -KILL -- "-$server" 2>/dev/null || true
    fi
    "$here/postgres.sh" stop "$folder" 9>&-
    rm -f "$folder/address"
    echo "stopped; everything is in $folder"
}
trap 'stop; exit 0' INT TERM HUP
trap stop EXIT

uri=$("$here/postgres.sh" start "$folder" 9>&-)
echo "PostgreSQL runs; its data: $folder/postgres"
# Jobs are for evaluating language models behind the server, and cost it several processes.
export MLFLOW_DISABLE_TELEMETRY=${MLFLOW_DISABLE_TELEMETRY:-true}
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false}
# A session of its own: Ctrl-C comes here first.
setsid "$python" -m mlflow server --backend-store-uri "$uri" --artifacts-destination "$folder/artifacts" \
    --host 127.0.0.1 --port "$port" --workers "$workers" "$@" >>"$folder/mlflow.log" 2>&1 9>&- &
server=$!
"$python" - "$server" "http://127.0.0.1:$port/health" 9>&- <<'PY' &
import os, sys, time, urllib.request
while True:
    try:
        os.kill(int(sys.argv[1]), 0)
        urllib.request.urlopen(sys.argv[2], timeout=5)
        break
    except ProcessLookupError:
        sys.exit(1)
    except OSError:
        time.sleep(0.2)
PY
wait $! || die "mlflow ended; the reason is in $folder/mlflow.log: $(tail -n 1 "$folder/mlflow.log")"
echo "http://127.0.0.1:$port" >"$folder/address"
echo "MLflow answers at http://127.0.0.1:$port; artifacts: $folder/artifacts; log: $folder/mlflow.log"
echo "train with: MLFLOW_TRACKING_URI=http://127.0.0.1:$port parallax train CONFIG"
wait "$server" || true
[ -n "$stopping" ] || die "mlflow ended by itself; the reason is in $folder/mlflow.log: $(tail -n 1 "$folder/mlflow.log")"
