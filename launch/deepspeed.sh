#!/bin/sh
# PROCESSES=4 launch/deepspeed.sh CONFIG deepspeed.zero_stage=2 [key=value …]
# On a machine without GPUs: DS_ACCELERATOR=cpu. PORT: where the ranks meet, if 29500 is taken.
# Two nodes: see docs/LAUNCHING.md, or python -m launch --via deepspeed.
exec deepspeed --num_gpus "${PROCESSES:-2}" --master_port "${PORT:-29500}" --module parallax.train "$@"
