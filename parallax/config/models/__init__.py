"""Configurations of the architectures: what all have, one file a family, and the choice between them."""
