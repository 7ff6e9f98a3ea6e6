import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallax.cli.output import print_json, print_table, progress_bar

if TYPE_CHECKING:
    from parallax.cli.model import ReadyModel
    from parallax.data.token_split import TokenSplit


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A run folder, a checkpoint in it, or a model folder.")],
    data: Annotated[
        str | None, typer.Option(help="Prepared folder, .bin, or raw text; default: what the run validated on.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a prepared folder: val or train.")] = "val",
    batch_size: Annotated[int, typer.Option(help="Windows at a time.", min=1)] = 16,
    max_seq_len: Annotated[
        int | None, typer.Option(help="Tokens of a window; default: as many as the model reads.", min=1)
    ] = None,
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model over a split, beside a unigram baseline."""
    from parallax.cli.model import open_model
    from parallax.data.unigram import unigram_baseline
    from parallax.data.validation import choose_windows, validation_batches
    from parallax.errors import NonFiniteError
    from parallax.metrics.quality import evaluate as measure
    from parallax.metrics.quality import quality_from_sums

    ready = open_model(checkpoint, device=device, dtype=dtype)
    measured, fitted, fitted_on = open_splits(ready, data, split)
    length = _window(max_seq_len, ready.model.config.max_seq_len)
    num_batches = -(-len(choose_windows(measured, length, None)) // batch_size)
    with progress_bar("evaluating") as advance:
        quality = measure(
            ready.model,
            validation_batches(measured, max_seq_len=length, batch_size=batch_size),
            bytes_per_token=measured.bytes_per_token,
            separating_eos_id=separating_eos_id(ready),
            progress=lambda done: advance(done, num_batches),
        )
    if not math.isfinite(quality.loss):
        raise NonFiniteError(f"{ready.path}: the loss is {quality.loss}; the weights or --dtype {dtype} overflow")
    counts = measured.counts()
    unigram = unigram_baseline(fitted.counts(), counts)
    baseline = quality_from_sums(
        unigram.nats_per_token * quality.tokens,
        quality.tokens,
        round(unigram.accuracy * quality.tokens),
        measured.bytes_per_token,
    )
    report: dict[str, Any] = {
        "checkpoint": str(ready.path),
        "data": measured.source,
        **asdict(quality),
        "unigram": {**asdict(baseline), "fitted_on": fitted_on},
    }
    if as_json:
        print_json(report)
        return
    _print_report(report)


def separating_eos_id(ready: "ReadyModel") -> int | None:
    """Documents are read apart where the run that trained the model read them so."""
    run = ready.run_config
    return ready.tokenizer.eos_id if run is not None and run.data.document_mask else None


def _window(asked: int | None, longest: int) -> int:
    from parallax.errors import ConfigError

    if asked is not None and asked > longest:
        raise ConfigError(f"--max-seq-len {asked}: the model reads at most {longest} tokens at a time")
    return asked or longest


def open_splits(ready: "ReadyModel", data: str | None, split: str) -> tuple["TokenSplit", "TokenSplit", str]:
    """The split to measure, the one the unigram model is fitted to, and the latter's name."""
    from parallax.data.builtin import builtin_folder, is_builtin
    from parallax.data.corpus import Corpus
    from parallax.data.text_split import encode_text_files
    from parallax.data.token_file import TOKEN_FILE_SUFFIX
    from parallax.data.tokenizer import check_same_tokenizer
    from parallax.errors import DataError

    if split not in ("train", "val"):
        raise DataError(f"--split {split}: expected val or train")
    settings = ready.run_config.data if ready.run_config is not None else None
    path = data
    if path is None and settings is not None:
        path = settings.val_path or settings.mixture[0].path
    if path is None:
        raise DataError(
            f"{ready.path} came without a run, so there is no text that it was validated on; give --data"
        )
    if is_builtin(path):
        made_with = (settings.tokenizer, settings.val_fraction) if settings is not None else (str(ready.path),)
        path = str(builtin_folder(path, *made_with))
    if Path(path).is_file() and not path.endswith(TOKEN_FILE_SUFFIX):
        text = encode_text_files([path], ready.tokenizer)
        return text, text, "the measured text itself"
    corpus = Corpus.open(path, ready.tokenizer)
    check_same_tokenizer(ready.tokenizer, corpus.meta.tokenizer_fingerprint, f"the corpus {corpus.path}")
    if corpus.is_token_file:
        whole = corpus.measured()
        return whole, whole, "the measured text itself"
    return corpus.split("val" if split == "val" else "train"), corpus.split("train"), "the training split"


def _print_report(report: dict[str, Any]) -> None:
    unigram = report["unigram"]

    def row(name: str, figures: dict[str, Any]) -> list[str]:
        return [
            name,
            f"{figures['loss']:.4f}",
            f"{figures['perplexity']:,.3f}",
            f"{figures['bits_per_byte']:.4f}",
            f"{figures['accuracy']:.2%}",
        ]

    print(f"{report['data']}: {report['tokens']:,} tokens predicted")
    print_table(
        "",
        ["", "nats/token", "perplexity", "bits/byte", "accuracy"],
        [row("this model", report), row("unigram", unigram)],
    )
    print(f"unigram: token frequencies of {unigram['fitted_on']}")
