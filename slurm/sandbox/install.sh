#!/usr/bin/env bash
# Installs what the sandbox needs from Debian's or Ubuntu's packages; as root, without questions. Exit code 1 names what
# is missing. SECONDS_TO_INSTALL bounds the time (600).
set -euo pipefail
packages="slurmctld slurmd slurm-client munge iproute2"

missing() {
    local program
    for program in slurmctld slurmd munged sbatch srun scontrol ip; do
        PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || printf '%s ' "$program"
    done
}

[ -z "$(missing)" ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: missing: $(missing); as root: apt-get install $packages" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "install.sh: missing: $(missing); there is no apt-get here: install Slurm and munge by other means" >&2
    exit 1
fi
# Without a policy the packages' own daemons would be started, with a configuration that is not there.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
seconds=${SECONDS_TO_INSTALL:-600}
# shellcheck disable=SC2086  # a list of packages
timeout "$seconds" sh -c "apt-get -q update && apt-get -q install --yes --no-install-recommends $packages" </dev/null || {
    echo "install.sh: apt-get did not install $packages within $seconds s" >&2
    exit 1
}
[ -z "$(missing)" ] || { echo "install.sh: still missing: $(missing)" >&2; exit 1; }
