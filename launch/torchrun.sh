#!/bin/sh
# PROCESSES=4 launch/torchrun.sh CONFIG [key=value …]
# Two nodes, on each: NODES=2 NODE_RANK=0 MASTER=node0 launch/torchrun.sh CONFIG [key=value …]
if [ "${NODES:-1}" -gt 1 ]; then
  exec torchrun --nnodes "$NODES" --node-rank "$NODE_RANK" --master-addr "$MASTER" --master-port "${PORT:-29500}" \
    --nproc-per-node "${PROCESSES:-2}" -m parallax.train "$@"
fi
exec torchrun --standalone --nproc-per-node "${PROCESSES:-2}" -m parallax.train "$@"
