#!/bin/sh
# FILE=configs/accelerate/fsdp2.yaml PROCESSES=4 launch/accelerate.sh CONFIG [key=value …]
# The files: single, ddp (GPUs only), fsdp2, zero1, zero2, zero3, zero3_offload. PROCESSES: all of all nodes.
# Two nodes, on each: NODES=2 NODE_RANK=0 MASTER=node0 PROCESSES=4 launch/accelerate.sh CONFIG [key=value …]
if [ "${NODES:-1}" -gt 1 ]; then
  exec accelerate launch --config_file "${FILE:-configs/accelerate/fsdp2.yaml}" --num_processes "${PROCESSES:-2}" \
    --num_machines "$NODES" --machine_rank "$NODE_RANK" --main_process_ip "$MASTER" \
    --main_process_port "${PORT:-29500}" -m parallax.train "$@"
fi
exec accelerate launch --config_file "${FILE:-configs/accelerate/fsdp2.yaml}" --num_processes "${PROCESSES:-2}" \
  -m parallax.train "$@"
