#!/bin/sh
# One process: launch/local.sh CONFIG [key=value …]
exec python -m parallax.train "$@"
