"""Architectures, free of distribution: the oracle that every parallel mode is compared with."""
