"""Runs on the Slurm sandbox: started for real, disturbed, and measured."""
