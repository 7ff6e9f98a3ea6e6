#!/usr/bin/env bash
# Asks the real scheduler of a cluster that is not there whether it would take a batch script; nothing runs.
#   plan.sh [--nodes 1000] [--cpus 96] [--gpus 8] [--mem 1000000] [--port 19817] -- SCRIPT [options of sbatch]
# There is a controller and no node. It does not look into the script beyond its #SBATCH lines.
set -euo pipefail
. "$(dirname "$0")/common.sh"
nodes=1000 cpus=96 gpus=8 mem=1000000 port=19817
while [ $# -gt 0 ]; do
    case $1 in
        --nodes | --cpus | --gpus | --mem | --port) printf -v "${1#--}" %s "${2:?}" && shift 2 ;;
        --) shift && break ;;
        *) die "unknown option $1" ;;
    esac
done
[ $# -gt 0 ] || die "which script? -- SCRIPT [options of sbatch]"
command -v sbatch >/dev/null || die "sbatch is not installed; as root: slurm/sandbox/install.sh"

folder=$(mktemp -d /tmp/parallax-plan.XXXXXX) run=$folder/slurm
trap 'stop "$run/pid/slurmctld.pid" slurmctld; stop "$run/pid/munged.pid" munged; rm -rf "$folder"' EXIT
chmod 755 "$folder"
prepare_folder
start_munge
# Nodes that never came count as usable only in state CLOUD, which wants programs to start and stop them.
cloud="NodeName=gpu[$(printf "%0${#nodes}d" 1)-$nodes] CPUs=$cpus RealMemory=$mem Gres=gpu:$gpus State=CLOUD"
cloud+=$'\n'"SuspendProgram=/bin/true"$'\n'"ResumeProgram=/bin/true"$'\n'"SuspendTime=600"
render "$here/conf/slurm.conf.in" RUN "$run" HOST "$(hostname -s)" ADDRESS 127.0.0.1 PORT "$port" USER "$(id -un)" \
    SLURMD_TIMEOUT 300 KILL_WAIT 30 GRACE 60 NODES "$cloud" >"$run/etc/slurm.conf"
cp "$here/conf/cgroup.conf.in" "$run/etc/cgroup.conf"
start_controller
sbatch --test-only "${@:2}" "$1"
