"""What a run will hold, send and take, found before it starts or when it lacks memory; see docs/PLANNING.md."""
