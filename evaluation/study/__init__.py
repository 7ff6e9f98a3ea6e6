"""A designed study: arms, paired seeds, tuned rates and fair baselines, from one file to one comparison."""
