"""What saving in the background costs a run: the wait for the copy, and steps beside the writing.

    python -m evaluation.saving configs/reference.yaml train.micro_batch=1 --output FOLDER --rounds 3

One process. Each round measures steps alone, a plain copy of the state, the stall of a started save, steps
while it is written, and the time until it is committed.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path

import torch

from evaluation.bench.ours import Trainer
from parallax.checkpoint.sharded_store import ShardedStore
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.parallel.optimizer_state import optimizer_tensors
from parallax.runtime.piece import Piece, whole_piece


def main() -> None:
    """Prints one line a round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of the configuration")
    parser.add_argument("--output", type=Path, required=True, help="a folder that is made, and deleted afterwards")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir()
    try:
        _measure(load_config(options.config, options.overrides), options.output, options.rounds)
    finally:
        shutil.rmtree(options.output)


def _measure(config: RunConfig, output: Path, rounds: int) -> None:
    trainer = Trainer(config, "fp32", compiled=False)
    windows = torch.randint(config.model.vocab_size, (config.train.micro_batch, config.model.max_seq_len + 1))
    trainer.step(windows)
    weights = {name: whole_piece(p) for name, p in trainer.engine.model.named_parameters()}
    tensors, _ = optimizer_tensors(trainer.engine.optimizer, trainer.engine.model.named_parameters())
    moments = {name: whole_piece(tensor) for name, tensor in tensors.items()}
    state = weights | moments
    size = sum(piece.local.nbytes for piece in state.values())
    print(f"state: {size / 1e6:,.0f} MB in {len(state)} tensors, {torch.get_num_threads()} thread(s)")
    store = ShardedStore(output, keep_last=1)
    measured: list[tuple[float, float]] = []
    for number in range(1, rounds + 1):
        alone = statistics.median(_timed_step(trainer, windows) for _ in range(2))
        copy = _timed_copy(state)
        start = time.perf_counter()
        store.start_save(number, pieces=weights, optimizer_pieces=moments, state={}, texts={})
        stall = time.perf_counter() - start
        beside = [_timed_step(trainer, windows)]
        while store.is_saving:
            beside.append(_timed_step(trainer, windows))
        store.finish()
        total = time.perf_counter() - start
        slowed = statistics.median(beside)
        measured.append((stall / copy, slowed / alone))
        print(
            f"copy {copy:.3f} s  stall {stall:.3f} s ({stall / copy:.2f}x)  step {alone:.2f} s alone, "
            f"{slowed:.2f} s beside a save ({slowed / alone:.2f}x, {len(beside)} steps)  "
            f"committed by {total:.1f} s",
            flush=True,
        )
    stalls, slowdowns = zip(*measured, strict=True)
    print(
        f"median: stall {statistics.median(stalls):.2f}x a copy, steps {statistics.median(slowdowns):.2f}x as long"
    )


def _timed_step(trainer: Trainer, windows: torch.Tensor) -> float:
    start = time.perf_counter()
    trainer.step(windows)
    return time.perf_counter() - start


def _timed_copy(state: dict[str, Piece]) -> float:
    """Seconds of a plain copy of all tensors into fresh memory."""
    start = time.perf_counter()
    copies = [piece.local.clone() for piece in state.values()]
    elapsed = time.perf_counter() - start
    del copies
    return elapsed


if __name__ == "__main__":
    main()
