"""What only a GPU can show, in ten minutes and one table to send in: `python -m evaluation.gpu_proof`."""
