"""Benchmarks and comparisons, run from the checkout: `python -m evaluation.NAME`."""
