"""Saving so that nothing is ever lost, verifying what is loaded, and building models from what was saved."""
