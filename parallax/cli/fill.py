from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallax.cli.output import print_json, print_table, progress_bar

if TYPE_CHECKING:
    from parallax.cli.model import ReadyModel
    from parallax.metrics.quality import Quality
    from parallax.model.gpt2_duo_predict import Gpt2DuoPredict

_GAP = "___"


def fill(
    checkpoint: Annotated[str, typer.Argument(help="A run folder, a checkpoint in it, or a model folder.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help=f"Text with {_GAP} where a token is missing; may be given again.")
    ] = None,
    top: Annotated[int, typer.Option(help="Candidates shown for a gap.", min=1)] = 5,
    data: Annotated[str | None, typer.Option(help="Without --prompt: what to measure on, as in eval.")] = None,
    split: Annotated[str, typer.Option(help="Split of a prepared folder: val or train.")] = "val",
    batch_size: Annotated[int, typer.Option(help="Windows at a time.", min=1)] = 16,
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fill gaps in texts with a duo-predict model, or measure how well it does."""
    from parallax.cli.model import open_model
    from parallax.errors import ConfigError
    from parallax.model.gpt2_duo_predict import Gpt2DuoPredict

    ready = open_model(checkpoint, device=device, dtype=dtype)
    if not isinstance(ready.model, Gpt2DuoPredict):
        name = ready.model.config.architecture
        raise ConfigError(
            f"{ready.path}: model.architecture={name} predicts no gaps; gpt2_duo_predict_strict does"
        )
    if prompt:
        _show_filled(ready, ready.model, prompt, top, as_json)
    else:
        _show_measured(ready, ready.model, data, split, batch_size, as_json)


def _show_filled(
    ready: "ReadyModel", model: "Gpt2DuoPredict", prompts: list[str], top: int, as_json: bool
) -> None:
    from parallax.errors import DataError
    from parallax.generate.fill import fill_gap

    filled = []
    for text in prompts:
        before, gap, after = text.partition(_GAP)
        if not gap or _GAP in after:
            raise DataError(f"--prompt {text!r}: expected one gap, written {_GAP}")
        ids = [[int(token) for token in ready.tokenizer.encode(part)] for part in (before, after)]
        found = fill_gap(model, ids[0], ids[1], top)
        options = [{"text": ready.tokenizer.decode([c.token]), "probability": c.probability} for c in found]
        filled.append({"prompt": text, "candidates": options})
    if as_json:
        print_json({"checkpoint": str(ready.path), "filled": filled})
        return
    for entry in filled:
        print(entry["prompt"])
        for option in entry["candidates"]:
            print(f"  {option['probability']:6.1%}  {option['text']!r}")  # type: ignore[index]


def _show_measured(
    ready: "ReadyModel", model: "Gpt2DuoPredict", data: str | None, split: str, batch_size: int, as_json: bool
) -> None:
    from parallax.cli.evaluate import open_splits, separating_eos_id
    from parallax.data.validation import choose_windows, validation_batches
    from parallax.metrics.quality import evaluate
    from parallax.model.gpt2_duo_predict import GapReader

    measured, _, _ = open_splits(ready, data, split)
    length = model.config.max_seq_len
    num_batches = 2 * -(-len(choose_windows(measured, length, None)) // batch_size)
    figures: dict[str, Quality] = {}
    with progress_bar("filling gaps") as advance:
        for number, (name, reader) in enumerate((("gaps", GapReader(model)), ("next token", model))):
            figures[name] = evaluate(
                reader,
                validation_batches(measured, max_seq_len=length, batch_size=batch_size),
                bytes_per_token=measured.bytes_per_token,
                separating_eos_id=separating_eos_id(ready),
                progress=lambda done, first=number * num_batches // 2: advance(first + done, num_batches),  # type: ignore[misc]
            )
    report: dict[str, Any] = {
        "checkpoint": str(ready.path),
        "data": measured.source,
        "leaks": not model.config.is_strict,
        **{name.replace(" ", "_"): asdict(quality) for name, quality in figures.items()},
    }
    if as_json:
        print_json(report)
        return
    print(f"{report['data']}: {figures['gaps'].tokens:,} gaps")
    rows = [[n, f"{q.loss:.4f}", f"{q.perplexity:,.3f}", f"{q.accuracy:.2%}"] for n, q in figures.items()]
    print_table("", ["", "nats/token", "perplexity", "accuracy"], rows)
    if report["leaks"]:
        print("leaks    through the token after it, each query sees its answer: the gaps' figures say nothing;")
        print("         gpt2_duo_predict_strict has a mask that no answer gets through")
