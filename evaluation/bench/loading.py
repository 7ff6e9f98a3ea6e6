import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from evaluation.bench.figures import Figure
from evaluation.bench.ours import Trainer
from parallax.config.run import RunConfig
from parallax.data.loader import Loader, LoaderSource
from parallax.data.token_split import TokenSplit

_TOKENS = 50_000_000


def bench_loading(config: RunConfig, steps: int, console: Console) -> list[Figure]:
    """The share of a training step that reading its windows takes, from a memory-mapped file of 100 MB."""
    console.rule("loading: windows from a file of 50 M tokens", align="left")
    trainer = Trainer(config, "fp32", compiled=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tokens.bin")
        ids = np.random.default_rng(0).integers(config.model.vocab_size, size=_TOKENS, dtype=np.uint16)
        ids.tofile(file)
        split = TokenSplit(
            [np.memmap(file, dtype="<u2", mode="r")],
            vocab_size=config.model.vocab_size,
            num_bytes=4 * _TOKENS,
            source="the bench",
        )
        loader = Loader([LoaderSource(split, "the bench")], max_seq_len=config.model.max_seq_len, seed=0)
        reading, shares = [], []
        for _ in range(steps + 1):
            start = time.perf_counter()
            windows = loader.next(config.train.micro_batch)
            read = time.perf_counter()
            trainer.step(windows)
            reading.append(read - start)
            shares.append((read - start) / (time.perf_counter() - start))
    share = statistics.median(shares[1:])
    seconds = statistics.median(reading[1:])
    return [Figure("loader, share of a step", f"{share:.3%} ({seconds * 1e3:.2f} ms)", goal="< 1 %")]
