"""Text to training windows: tokenizers, corpora of token shards, the order of samples, the loader."""
