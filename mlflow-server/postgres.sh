#!/usr/bin/env bash
# A private PostgreSQL below one folder: no network, a socket that only its owner (and root) may use, no password.
#   postgres.sh start FOLDER   makes it if it is not there, starts it, prints the URI of its database
#   postgres.sh stop FOLDER [fast|immediate]
#   postgres.sh check          exit code 2 and one line where PostgreSQL is not installed
# PostgreSQL refuses to run as root, for whom it then runs as PG_USER (postgres).
set -euo pipefail
name=mlflow

die() {
    echo "postgres.sh: $*" >&2
    exit 2
}

# find_programs: $bin, the folder of initdb, pg_ctl and psql; Debian keeps them out of PATH
find_programs() {
    local found
    found=$(command -v initdb || find "${PG_ROOT:-/usr/lib/postgresql}"/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
    [ -n "$found" ] || die "PostgreSQL is not installed; on Debian and Ubuntu, as root: apt-get install postgresql"
    bin=$(dirname "$(readlink -f "$found")")
}

# as_owner COMMAND …: as the user that the cluster belongs to
as_owner() {
    if [ "$(id -u)" -eq 0 ]; then (cd / && exec runuser -u "$owner" -- "$@"); else "$@"; fi
}

prepare_folder() {
    # The path of a socket holds 107 characters; the rest are those that a URI takes as they are.
    [ ${#folder} -le 80 ] || die "$folder: longer than 80 characters, too long for the path of a socket"
    [[ $folder =~ ^[A-Za-z0-9/._-]+$ ]] || die "$folder: only letters, digits and /._- may be in it"
    mkdir -p "$folder"
    [ -d "$data" ] || install -d -m 700 "$data"
    [ -d "$socket" ] || install -d -m 700 "$socket"
    [ "$(id -u)" -ne 0 ] || chown "$owner" "$data" "$socket"
    as_owner test -w "$data" || die "$folder: user $owner cannot get there; choose a folder outside of other users' homes"
}

make_cluster() {
    [ ! -e "$data/PG_VERSION" ] || return 0
    as_owner "$bin/initdb" --pgdata "$data" --username "$name" --encoding UTF8 --locale C \
        --auth-local trust --auth-host reject >"$folder/initdb.log" 2>&1 ||
        die "initdb failed: $(tail -n 1 "$folder/initdb.log")"
    as_owner tee -a "$data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$socket'
unix_socket_permissions = 0700
logging_collector = off
CONF
}

is_running() { as_owner "$bin/pg_ctl" status --pgdata "$data" >/dev/null 2>&1; }

start() {
    prepare_folder
    make_cluster
    local version
    version=$(cat "$data/PG_VERSION")
    # A newer PostgreSQL beside the one that made the cluster is no use to it.
    [ -x "$bin/../../$version/bin/postgres" ] && bin=$bin/../../$version/bin
    is_running || as_owner "$bin/pg_ctl" start --wait --timeout 60 --pgdata "$data" --log "$data/server.log" \
        >/dev/null 2>&1 || die "PostgreSQL did not start: $(tail -n 1 "$data/server.log")"
    if ! as_owner "$bin/psql" -qtA -h "$socket" -U "$name" -d postgres -c \
        "SELECT 1 FROM pg_database WHERE datname = '$name'" | grep -q 1; then
        as_owner "$bin/createdb" -h "$socket" -U "$name" "$name"
    fi
    echo "postgresql://$name@/$name?host=$socket"
}

action=${1:-}
find_programs
case $action in
    check) exit 0 ;;
    start | stop) [ $# -ge 2 ] || die "$action needs a folder" ;;
    *) die "expected start FOLDER, stop FOLDER or check, not '$action'" ;;
esac
folder=$(realpath -m "$2")
data=$folder/postgres
socket=$folder/socket
owner=$(id -un 2>/dev/null || id -u)
if [ "$(id -u)" -eq 0 ]; then
    owner=${PG_USER:-postgres}
    id "$owner" >/dev/null 2>&1 || die "PostgreSQL does not run as root, and there is no user $owner; PG_USER=NAME names another"
fi
if [ "$action" = start ]; then
    start
elif [ -d "$data" ] && is_running; then
    as_owner "$bin/pg_ctl" stop --wait --timeout 60 --mode "${3:-fast}" --pgdata "$data" >/dev/null
fi
