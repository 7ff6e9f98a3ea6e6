# ruff: noqa: E402  (settings that torch reads when it is imported come first)
"""What the tracks of a trained model do, on text that it has not seen.

`python -m evaluation.tracks RUN [--data TEXT] [--split val] [--tokens N] [--show tracks,fuse] [--output DIR]`
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from evaluation.dual_track import as_dual_track
from parallax.model.dual_track import DualTrack
from parallax.runtime.threads import limit_spinning

limit_spinning()

from rich.console import Console

from evaluation.arguments import check_at_least
from evaluation.output import make_output_folder
from evaluation.tracks.found import Found
from evaluation.tracks.probe import SHOWN, check_shown, probe
from evaluation.tracks.report import print_found
from evaluation.tracks.write import write_found
from parallax.cli.evaluate import open_splits, separating_eos_id
from parallax.cli.model import open_model
from parallax.cli.output import progress_bar
from parallax.data.validation import validation_batches
from parallax.errors import ConfigError, run_and_explain
from parallax.runtime.ranks import read_ranks


def main(arguments: Sequence[str] | None = None) -> int:
    """Looks into one model, prints tables, and writes figures and pictures; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.tracks", description="How far tracks differ and what each is worth."
    )
    parser.add_argument("model", metavar="RUN", help="a run folder, a checkpoint in it, or a model folder")
    parser.add_argument("--data", help="prepared folder, .bin or raw text; default: what the run validated on")
    parser.add_argument("--split", default="val", help="of a prepared folder: val or train")
    parser.add_argument("--tokens", type=int, default=16384, help="how much to read, in windows spread evenly")
    parser.add_argument("--show", default=",".join(SHOWN), help=f"of {','.join(SHOWN)}; default: all")
    parser.add_argument("--batch-size", type=int, default=8, help="windows at a time")
    parser.add_argument("--dtype", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--output", metavar="DIR", help="write tracks.json, tracks.html and the pictures here")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _look(given))


def _look(given: argparse.Namespace) -> int:
    show = given.show.split(",")
    check_at_least(given, tokens=1, batch_size=1)
    if read_ranks().world_size > 1:
        raise ConfigError(
            "the tracks are looked at in one process, which holds all of them; start without torchrun"
        )
    if given.output:
        make_output_folder(Path(given.output))
    ready = open_model(given.model, device=given.device, dtype=given.dtype)
    check_shown(as_dual_track(ready.model.config), show, given.model)
    measured, _, _ = open_splits(ready, given.data, given.split)
    length = ready.model.config.max_seq_len
    batches = validation_batches(
        measured,
        max_seq_len=length,
        batch_size=given.batch_size,
        max_windows=-(-given.tokens // length),
    )
    with progress_bar("looking") as advance:
        found: Found = probe(
            cast(DualTrack, ready.model),
            list(batches),
            source=str(ready.path),
            data=measured.source,
            separating_eos_id=separating_eos_id(ready),
            show=show,
            progress=advance,
        )
    print_found(Console(highlight=False, markup=False, soft_wrap=True), found)
    if given.output:
        for path in write_found(found, Path(given.output)):
            print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
