"""`python -m evaluation.study FILE [--output DIR] [--via local|slurm] [--jobs N] [--dry-run] [-- OPTIONS]`."""

import sys

from evaluation.study.command import main

if __name__ == "__main__":
    sys.exit(main())
