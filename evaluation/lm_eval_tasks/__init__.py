"""Tasks for lm-eval made of a run's own held-out text: `python -m evaluation.lm_eval_tasks RUN --output DIR`."""
