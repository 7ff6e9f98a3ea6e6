# shellcheck shell=bash
# Sourced by the scripts beside it: what a private Slurm consists of, below one folder, $run.
# shellcheck disable=SC2034  # for the scripts; all but the first are read from $run/shape
run='' mode='' nodes='' port='' net='' bridge=''
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# prepare_folder: makes $run. Slurm tests the name it was started by (as slurmd-wlm it drops Gres= in silence), and
# its emulator's package takes the plain names over: so links of the plain names to the real programs are started.
prepare_folder() {
    local name
    [ -e "$run" ] && die "$run exists; first: ${here#"$PWD"/}/down.sh --run $run"
    [ ${#run} -lt 70 ] || die "--run $run: longer than 69 characters, too long for the path of a socket"
    mkdir -p "$run"/{bin,etc,munge,state,spool,log,pid,dev}
    chmod 755 "$run" "$run/munge"
    chmod 700 "$run/state"
    for name in slurmctld slurmd slurmstepd; do
        if [ -x "/usr/sbin/$name-wlm" ]; then ln -s "/usr/sbin/$name-wlm" "$run/bin/$name"
        elif [ -x "/usr/sbin/$name" ]; then ln -s "/usr/sbin/$name" "$run/bin/$name"
        else die "$name is not installed; as root: slurm/sandbox/install.sh"; fi
    done
}

# start_munge: authentication with a key of its own, over a socket of its own
start_munge() {
    (umask 077 && head -c 1024 /dev/urandom >"$run/munge/munge.key")
    PATH=$PATH:/usr/sbin munged --force --key-file="$run/munge/munge.key" --socket="$run/munge/munge.sock" \
        --pid-file="$run/pid/munged.pid" --log-file="$run/log/munged.log" --seed-file="$run/munge/seed" \
        >"$run/log/munged.out" 2>&1 || die "munged did not start: $(tail -n 1 "$run/log/munged.out")"
}

# render FILE NAME VALUE …: the file with every @NAME@ filled in
render() {
    local text
    text=$(<"$1")
    shift
    while [ $# -gt 0 ]; do
        text=${text//"@$1@"/"$2"}
        shift 2
    done
    printf '%s\n' "$text"
}

# start_controller: with $run/etc/slurm.conf; waits until it answers
start_controller() {
    local _
    export SLURM_CONF=$run/etc/slurm.conf
    "$run/bin/slurmctld" -f "$SLURM_CONF" >"$run/log/slurmctld.out" 2>&1 ||
        die "slurmctld did not start: $(tail -n 3 "$run/log/slurmctld.out" "$run/log/slurmctld.log" 2>&1)"
    for _ in {1..100}; do
        scontrol ping 2>/dev/null | grep -q UP && return
        sleep 0.1
    done
    die "slurmctld does not answer; see $run/log/slurmctld.log"
}

# stop PIDFILE WORD: ends a process whose command line holds the word
stop() {
    local pid _
    pid=$(cat "$1" 2>/dev/null) || return 0
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "$2" || return 0
    kill "$pid"
    for _ in {1..30}; do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid"
}
