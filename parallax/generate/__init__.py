"""Writing text with a model: sampling, batched decoding over its cache, and streaming what was written."""
