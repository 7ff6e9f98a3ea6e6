"""Runs tracked by a real MLflow server that is killed meanwhile: what arrives, and what it costs a step."""
