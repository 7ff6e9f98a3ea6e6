"""One file of Python that computes a model without Parallax, put together from the sources of the model itself."""
