#!/usr/bin/env bash
# Installs Chromium from Debian's packages, for tests in a browser; as root, without questions. Exit code 1 says what is
# missing. SECONDS_TO_INSTALL bounds the time (600).
set -euo pipefail
[ -x /usr/bin/chromium ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: there is no /usr/bin/chromium; as root: apt-get install chromium" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "install.sh: there is no /usr/bin/chromium and no apt-get: install Chromium by other means" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
seconds=${SECONDS_TO_INSTALL:-600}
timeout "$seconds" sh -c "apt-get -q update && apt-get -q install --yes --no-install-recommends chromium" </dev/null || {
    echo "install.sh: apt-get did not install chromium within $seconds s" >&2
    exit 1
}
[ -x /usr/bin/chromium ] || { echo "install.sh: there is still no /usr/bin/chromium" >&2; exit 1; }
