#!/usr/bin/env bash
# Starts a real Slurm cluster on this machine; down.sh ends it.
#   up.sh [--run DIR] [--nodes 4] [--cpus 4] [--gpus 2] [--port 17817] [--mode hosts|multi]
# hosts: every node has network, hostname, processes and /dev/shm of its own. As root, or as anybody in
#        unshare --user --map-current-user --keep-caps --net --mount --pid --fork --mount-proc
# multi: several slurmd on this host, told apart by their ports; needs no privilege
# GPUs are not there: requests for them are parsed, granted, refused when too big, and set CUDA_VISIBLE_DEVICES.
set -euo pipefail
. "$(dirname "$0")/common.sh"
mode=hosts nodes=4 cpus=4 gpus=2 run=/tmp/parallax-slurm port=17817
while [ $# -gt 0 ]; do
    case $1 in
        --mode | --nodes | --cpus | --gpus | --run | --port) [ $# -gt 1 ] || die "$1 needs a value" ;;
        *) die "unknown option $1" ;;
    esac
    printf -v "${1#--}" %s "$2"
    shift 2
done
case $mode in hosts | multi) ;; *) die "--mode $mode: expected hosts or multi" ;; esac
PATH=$PATH:/usr/sbin run=$(realpath -m "$run")

prepare_folder
# Another port is another cluster: its addresses and interfaces follow from it.
net=10.$((100 + port / 250 % 100)).$((port % 250)) bridge=plx$port
declare -p mode nodes run port net bridge >"$run/shape"
for ((gpu = 0; gpu < gpus; gpu++)); do ln -s /dev/null "$run/dev/gpu$gpu"; done # must look like devices

host=$(hostname -s) lines='' hosts="127.0.0.1 localhost"$'\n'"$net.1 $(hostname -s)"
for ((i = 1; i <= nodes; i++)); do
    address=127.0.0.1 name=$host node_port=$((port + i))
    [ "$mode" = hosts ] && address=$net.$((10 + i)) name=node$i node_port=$((port + 1))
    hosts+=$'\n'"$address node$i"
    lines+="NodeName=node$i NodeAddr=$address NodeHostname=$name Port=$node_port CPUs=$cpus RealMemory=4000 "
    lines+="Gres=gpu:fake:$gpus State=UNKNOWN"$'\n'
    mkdir -p "$run/spool/node$i"
done
controller=127.0.0.1
[ "$mode" = hosts ] && controller=$net.1
echo "$hosts" >"$run/etc/hosts"
render "$here/conf/slurm.conf.in" RUN "$run" HOST "$host" ADDRESS "$controller" PORT "$port" USER "$(id -un)" \
    SLURMD_TIMEOUT 10 KILL_WAIT 5 GRACE 10 NODES "$lines" >"$run/etc/slurm.conf"
render "$here/conf/gres.conf.in" RUN "$run" NODES "node[1-$nodes]" LAST $((gpus - 1)) >"$run/etc/gres.conf"
cp "$here/conf/cgroup.conf.in" "$run/etc/cgroup.conf"
printf 'export SLURM_CONF=%s PARALLAX_SANDBOX=%s\n' "$run/etc/slurm.conf" "$run" >"$run/env"

if [ "$mode" = hosts ]; then
    ip link add "$bridge" type bridge || die "no bridge could be made; need root, or: --mode multi"
    ip addr add "$net.1/24" dev "$bridge"
    ip link set "$bridge" up
    ip link set lo up
fi
start_munge
start_controller
for ((i = 1; i <= nodes; i++)); do "$here/node.sh" start "$i" --run "$run"; done
for _ in {1..150}; do
    idle=$(sinfo -h -N -o %T -p low 2>/dev/null | grep -c '^idle$' || :)
    [ "$idle" = "$nodes" ] && break
    sleep 0.1
done
[ "$idle" = "$nodes" ] || die "$idle of $nodes nodes came up; see $run/log"
echo "up: $nodes nodes ($mode) after $SECONDS s; now: . $run/env"
