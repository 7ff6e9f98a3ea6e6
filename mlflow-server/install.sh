#!/usr/bin/env bash
# Installs PostgreSQL from Debian's or Ubuntu's packages; as root, without questions and without starting a server.
# Exit code 1 says what is missing. SECONDS_TO_INSTALL bounds the time (600).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

"$here/postgres.sh" check 2>/dev/null && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: PostgreSQL is missing; as root: apt-get install postgresql" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "install.sh: PostgreSQL is missing and there is no apt-get here: install it by other means" >&2
    exit 1
fi
# Debian would make and start a cluster of its own: it makes none if told so, and starts none at run level 1.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
seconds=${SECONDS_TO_INSTALL:-600}
timeout "$seconds" sh -c 'apt-get -q update &&
    apt-get -q install --yes --no-install-recommends -o Dpkg::Options::=--force-confold postgresql' </dev/null || {
    echo "install.sh: apt-get did not install postgresql within $seconds s" >&2
    exit 1
}
"$here/postgres.sh" check
