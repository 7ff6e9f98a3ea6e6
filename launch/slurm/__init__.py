"""`--via slurm`: a plan becomes a batch job; and what to do with a job afterwards. No torch is loaded here."""
