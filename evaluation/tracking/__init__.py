"""Whether MLflow has every line of a run once, whatever happens to its server."""
