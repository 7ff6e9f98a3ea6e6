"""Speed and memory beside peers that were measured in the same run: `python -m evaluation.bench`."""
