"""Attention operators and, for each, the backends that compute it; the eager backend is the oracle."""
