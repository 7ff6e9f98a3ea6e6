"""What a run measured: its journal, the trackers fed from it, speed, memory, and quality over a split."""
