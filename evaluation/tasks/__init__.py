"""Suites from held-out text: cloze, minimal pairs, and how repetitive a model's own text is."""
