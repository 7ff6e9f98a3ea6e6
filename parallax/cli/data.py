import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallax.cli.data_report import print_inspection
from parallax.cli.output import Advance, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from parallax.data.meta import SplitMeta
    from parallax.data.open_source import ReadOptions

data_app = typer.Typer(name="data", help="Turn text into token shards.", rich_markup_mode=None)

InputOption = Annotated[
    list[str],
    typer.Option(
        "--input", help="Files (.txt, .jsonl, .parquet), folders, patterns; or datasets:NAME. Several may follow."
    ),
]
# A shell that expands --input *.txt leaves all but the first behind.
MoreArgument = Annotated[list[str] | None, typer.Argument(hidden=True)]
TokenizerOption = Annotated[
    str, typer.Option("--tokenizer", help="byte, char, bpe:SIZE, a tokenizer.json or its folder, or a hub name.")
]
FieldOption = Annotated[str, typer.Option("--text-field", help="Field or column that holds the text.")]
ErrorsOption = Annotated[
    str, typer.Option("--encoding-errors", help="strict: stop at invalid UTF-8; replace: put U+FFFD in its place.")
]
ConfigOption = Annotated[str | None, typer.Option("--dataset-config", help="Configuration of a datasets: input.")]
SplitOption = Annotated[str, typer.Option("--dataset-split", help="Split of a datasets: input.")]
RevisionOption = Annotated[str | None, typer.Option("--dataset-revision", help="Its revision on the hub.")]
WorkersOption = Annotated[
    int | None, typer.Option("--num-workers", help="Processes that encode; default: all available cores.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@data_app.callback()
def _data() -> None:
    """Turn text into token shards."""


@data_app.command()
def prepare(
    inputs: InputOption,
    output: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    more: MoreArgument = None,
    tokenizer: TokenizerOption = "byte",
    val_fraction: Annotated[float, typer.Option(help="Share held out for validation.")] = 0.05,
    text_field: FieldOption = "text",
    encoding_errors: ErrorsOption = "strict",
    dataset_config: ConfigOption = None,
    dataset_split: SplitOption = "train",
    dataset_revision: RevisionOption = None,
    num_workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn text into the folder of shards that data.path names; the same command continues a cut-off one."""
    from parallax.data.prepare import prepare as make

    options = _options(text_field, encoding_errors, dataset_config, dataset_split, dataset_revision)
    with _stages(output, tokenizer) as (advance, learning):
        meta = make(
            [*inputs, *(more or ())],
            output,
            tokenizer=tokenizer,
            val_fraction=val_fraction,
            **vars(options),
            num_workers=num_workers,
            progress=advance,
            learning=learning,
            note=_note,
        )
    if as_json:
        print_json({"path": str(output), **meta.model_dump(mode="json")})
        return
    _print_splits({"train": meta.train, "val": meta.val})
    print(f"tokenizer {meta.tokenizer}, {meta.vocab_size:,} ids; written to {output}")
    print(f"next: {_train_command(output, meta.vocab_size)}")


@data_app.command()
def tokenize(
    inputs: InputOption,
    output: Annotated[Path, typer.Option(help="File to make, such as train.bin; must not exist.")],
    more: MoreArgument = None,
    tokenizer: TokenizerOption = "byte",
    text_field: FieldOption = "text",
    encoding_errors: ErrorsOption = "strict",
    dataset_config: ConfigOption = None,
    dataset_split: SplitOption = "train",
    dataset_revision: RevisionOption = None,
    num_workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn text into one plain file of uint32 ids, with its tokenizer in OUTPUT.json beside it."""
    from parallax.data.tokenize_file import tokenize_file

    with _stages(output, tokenizer) as (advance, learning):
        notes = tokenize_file(
            [*inputs, *(more or ())],
            output,
            tokenizer=tokenizer,
            options=_options(text_field, encoding_errors, dataset_config, dataset_split, dataset_revision),
            num_workers=num_workers,
            progress=advance,
            learning=learning,
            note=_note,
        )
    if as_json:
        print_json({"path": str(output), **notes.model_dump(mode="json", exclude={"definition"})})
        return
    print(f"{notes.documents:,} documents, {notes.tokens:,} tokens, {notes.text_bytes:,} bytes of text")
    print(f"tokenizer {notes.tokenizer}, {notes.vocab_size:,} ids; written to {output} and {output}.json")
    print(f"next: {_train_command(output, notes.vocab_size)} data.val_path=…")


@data_app.command()
def collect(
    inputs: InputOption,
    output: Annotated[Path, typer.Option(help=".jsonl or .txt to write text; another name: a prepared corpus.")],
    more: MoreArgument = None,
    shuffle_buffer: Annotated[int, typer.Option(help="Documents to draw from; 1 keeps the order.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the shuffle.")] = 0,
    min_chars: Annotated[int, typer.Option(help="Leave out shorter documents.")] = 0,
    max_chars: Annotated[int | None, typer.Option(help="Leave out longer documents.")] = None,
    max_bytes: Annotated[str | None, typer.Option(help="Most bytes of text, such as 100MB or 2GB.")] = None,
    tokenizer: TokenizerOption = "byte",
    val_fraction: Annotated[float, typer.Option(help="Share of a corpus held out.")] = 0.05,
    text_field: FieldOption = "text",
    encoding_errors: ErrorsOption = "strict",
    dataset_config: ConfigOption = None,
    dataset_split: SplitOption = "train",
    dataset_revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stream text, shuffle it, filter it by length, and write it up to a size."""
    from parallax.data.collect import CollectedSource, CollectOptions, parse_bytes, write_texts
    from parallax.data.open_source import open_source
    from parallax.data.prepare import prepare_source, refuse_existing

    refuse_existing(output)
    as_text = output.suffix.lower() in (".jsonl", ".txt")
    names = [*inputs, *(more or ())]
    options = _options(text_field, encoding_errors, dataset_config, dataset_split, dataset_revision)
    wanted = CollectOptions(
        seed=seed,
        shuffle_buffer=shuffle_buffer,
        min_chars=min_chars,
        max_chars=max_chars,
        max_bytes=parse_bytes(max_bytes) if max_bytes is not None else None,
        val_fraction=0.0 if as_text else val_fraction,
    )
    source = CollectedSource(open_source(names, 0.0, options), wanted)
    with _stages(output, tokenizer) as (advance, learning):
        if as_text:
            write_texts(source, output, text_field, partial(advance, label="collecting"))
            field = (
                f" --text-field {text_field}" if output.suffix.lower() == ".jsonl" and text_field != "text" else ""
            )
            after = f"parallax data prepare --input {output}{field} --output …"
        else:
            meta = prepare_source(source, output, names, tokenizer, val_fraction, advance, learning, _note)
            after = _train_command(output, meta.vocab_size)
    if as_json:
        print_json({"path": str(output), **vars(source.tally)})
        return
    tally = source.tally
    print(f"{tally.read:,} documents read: {tally.too_short:,} too short, {tally.too_long:,} too long")
    print(f"{tally.kept:,} kept, {tally.kept_bytes:,} bytes of text{', the limit' if tally.is_full else ''}")
    print(f"written to {output}\nnext: {after}")


@data_app.command()
def inspect(
    paths: Annotated[list[str], typer.Argument(help="A corpus, a .bin, or text: files, folders, datasets:NAME.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="For text, or a .bin without notes; default for text: byte.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare checksums.")] = False,
    text_field: FieldOption = "text",
    encoding_errors: ErrorsOption = "strict",
    dataset_config: ConfigOption = None,
    dataset_split: SplitOption = "train",
    dataset_revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a corpus, a .bin file or text holds."""
    from parallax.data.inspect_data import inspect_corpus, inspect_text, is_corpus
    from parallax.errors import DataError

    options = _options(text_field, encoding_errors, dataset_config, dataset_split, dataset_revision)
    with progress_bar("reading") as advance:
        report: dict[str, Any]
        if len(paths) == 1 and is_corpus(Path(paths[0])):
            report = inspect_corpus(Path(paths[0]), tokenizer, verify, advance)
        elif verify:
            raise DataError(f"{' '.join(paths)}: --verify compares checksums, which text does not have; drop it")
        else:
            report = inspect_text(paths, tokenizer or "byte", options, advance)
    if as_json:
        print_json(report)
        return
    print_inspection(report)


def _options(
    text_field: str, encoding_errors: str, config: str | None, split: str, revision: str | None
) -> "ReadOptions":
    from parallax.data.open_source import ReadOptions
    from parallax.errors import DataError

    if encoding_errors not in ("strict", "replace"):
        raise DataError(f"--encoding-errors {encoding_errors}: expected strict or replace")
    return ReadOptions(
        text_field=text_field,
        encoding_errors="strict" if encoding_errors == "strict" else "replace",
        dataset_config=config,
        dataset_split=split,
        dataset_revision=revision,
    )


@contextmanager
def _stages(output: Path, tokenizer: str) -> Iterator[tuple[Advance, Advance]]:
    """One bar for encoding and, before it, for learning; says after Ctrl-C what is left."""
    from parallax.data.partial import PartialCorpus

    try:
        with progress_bar("reading") as advance:
            yield partial(advance, label="encoding"), partial(advance, label=f"learning {tokenizer}")
    except KeyboardInterrupt:
        if PartialCorpus(output).holds_work:
            _note(f"{PartialCorpus(output).folder} holds what is done; the same command continues")
        raise


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _train_command(output: Path, vocab_size: int) -> str:
    return f"parallax train configs/tiny.yaml data.path={output} model.vocab_size={vocab_size} run.dir=…"


def _print_splits(splits: "dict[str, SplitMeta]") -> None:
    print_table(
        "",
        ["split", "documents", "tokens", "bytes of text"],
        [
            [name, f"{split.documents:,}", f"{split.tokens:,}", f"{split.text_bytes:,}"]
            for name, split in splits.items()
        ],
    )
