"""An MLflow server of one's own, over a PostgreSQL cluster of its own: `python -m launch.tracking`."""
