#!/usr/bin/env bash
# Ends a cluster that up.sh started, and removes its folder.   down.sh [--run DIR] [--keep]
# Only what is recorded in DIR/pid is ended, and what carries DIR's SLURM_CONF in its environment.
set -uo pipefail
. "$(dirname "$0")/common.sh"
run=/tmp/parallax-slurm keep=
while [ $# -gt 0 ]; do
    case $1 in
        --run) run=${2:?} && shift 2 ;;
        --keep) keep=1 && shift ;;
        *) die "unknown option $1" ;;
    esac
done
[ -f "$run/shape" ] || die "no sandbox in $run"
# shellcheck source=/dev/null  # mode nodes run port net bridge, as up.sh wrote them
. "$run/shape"
export SLURM_CONF=$run/etc/slurm.conf

# ours: the processes that were started for this cluster's jobs, by the variable that they inherited
ours() {
    local folder
    for folder in /proc/[0-9]*; do
        case ${folder#/proc/} in "$$" | "$PPID") continue ;; esac
        tr '\0' '\n' 2>/dev/null <"$folder/environ" | grep -qx "SLURM_CONF=$SLURM_CONF" || continue
        tr '\0' ' ' 2>/dev/null <"$folder/cmdline" | grep -qE 'slurmstepd|slurm_script|srun|sbatch|/spool/|torch' &&
            echo "${folder#/proc/}"
    done
}

timeout 5 scancel -u "$(id -un)" 2>/dev/null
stop "$run/pid/slurmctld.pid" slurmctld
for ((i = 1; i <= nodes; i++)); do
    # In hosts mode a node's processes go with its pid 1, and that with the process that is recorded.
    if [ "$mode" = hosts ]; then
        pid=$(cat "$run/pid/node$i.pid" 2>/dev/null) && grep -q node.sh "/proc/$pid/cmdline" 2>/dev/null && kill -9 "$pid"
        ip link del "${bridge}n$i" 2>/dev/null
    else
        stop "$run/pid/slurmd.node$i.pid" slurmd
    fi
done
for signal in TERM KILL; do
    for pid in $(ours); do kill "-$signal" "$pid" 2>/dev/null; done
    sleep 0.3
done
stop "$run/pid/munged.pid" munged
[ "$mode" = hosts ] && ip link del "$bridge" 2>/dev/null
left=$(ours)
[ -z "$left" ] || die "still there: $left"
[ -n "$keep" ] || rm -rf "$run"
echo "down: $run"
