#!/usr/bin/env bash
# One node of the sandbox: start it, and do to it what happens to nodes.
#   node.sh start|kill|cut|join|kill-slurmd|start-slurmd N [--run DIR]
# kill: the whole node at once; cut, join: its cable; kill-slurmd: Slurm's daemon alone, the job's processes live on
set -euo pipefail
. "$(dirname "$0")/common.sh"
action=${1:-} i=${2:-} run=/tmp/parallax-slurm
[ "${3:-}" = --run ] && run=$4
[ -f "$run/shape" ] || die "no sandbox in $run; first: up.sh --run $run"
# shellcheck source=/dev/null  # mode nodes run port net bridge, as up.sh wrote them
. "$run/shape"
name=node$i veth=${bridge}n$i pid_file=$run/pid/node$i.pid
export SLURM_CONF=$run/etc/slurm.conf PATH=$PATH:/usr/sbin

# mount(8) refuses any user but 0, even one with the capability in a namespace of its own: then by the system call
mount_as_we_are() {
    mount "$@" 2>/dev/null || python3 - "$@" <<'PY'
import ctypes, sys
kind, source, target = sys.argv[1], *(word.encode() for word in sys.argv[-2:])
flags, file_system = (4096, None) if kind == "--bind" else (0, b"tmpfs")
sys.exit(ctypes.CDLL(None).mount(source, target, file_system, flags, None) != 0)
PY
}

# pid 1 of the node, in namespaces of its own
inside() {
    hostname "$name"
    mount_as_we_are --bind "$run/etc/hosts" /etc/hosts
    mount_as_we_are -t tmpfs tmpfs /dev/shm
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
    ip link set lo up
    ip addr add "$net.$((10 + i))/24" dev eth0
    ip link set eth0 up
    while :; do
        rm -f "$run/spool/$name/start"
        "$run/bin/slurmd" -D -N "$name" -f "$SLURM_CONF" -d "$run/bin/slurmstepd" >>"$run/log/$name.out" 2>&1 || :
        until [ -e "$run/spool/$name/start" ]; do sleep 0.2; done
    done
}

start() {
    if [ "$mode" = multi ]; then
        "$run/bin/slurmd" -N "$name" -f "$SLURM_CONF" -d "$run/bin/slurmstepd" >"$run/log/$name.out" 2>&1
        return
    fi
    setsid unshare --net --uts --mount --pid --fork --kill-child --mount-proc --propagation private \
        "$here/node.sh" inside "$i" --run "$run" >"$run/log/$name.sh.out" 2>&1 </dev/null &
    echo $! >"$pid_file"
    until [ "$(readlink "/proc/$!/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
    ip link del "$veth" 2>/dev/null || :
    ip link add "$veth" type veth peer name eth0 netns $!
    ip link set "$veth" master "$bridge" up
}

[ "$mode" = hosts ] || [ "$action" = start ] || die "$action: only in --mode hosts"
case $action in
    start | inside) "$action" ;;
    kill) kill -9 "$(<"$pid_file")" ;; # its child, the node's pid 1, goes with it, and with that all that ran there
    cut) ip link set "$veth" down ;;
    join) ip link set "$veth" up ;;
    kill-slurmd) kill -9 "$(pgrep -x slurmd -P "$(pgrep -P "$(<"$pid_file")")")" ;;
    start-slurmd) touch "$run/spool/$name/start" ;;
    *) die "$action: expected start, kill, cut, join, kill-slurmd or start-slurmd" ;;
esac
