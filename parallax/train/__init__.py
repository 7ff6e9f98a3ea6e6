"""Training: objective, optimizer, schedule, one linear step, the loop around it, and the run's folder."""
