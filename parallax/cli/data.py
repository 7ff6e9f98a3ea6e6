from pathlib import Path
from typing import Annotated

import typer

from parallax.cli.output import print_json, print_table, progress_bar

data_app = typer.Typer(name="data", help="Turn text into token shards.", rich_markup_mode=None)


@data_app.callback()
def _data() -> None:
    """Turn text into token shards."""


@data_app.command()
def prepare(
    inputs: Annotated[
        list[str],
        typer.Option("--input", help="Files (.txt, .jsonl), folders or patterns; several may follow."),
    ],
    output: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    tokenizer: Annotated[
        str, typer.Option(help="byte, char, bpe:SIZE, a tokenizer.json or its folder, or a hub name.")
    ] = "byte",
    val_fraction: Annotated[float, typer.Option(help="Share held out for validation.")] = 0.05,
    text_field: Annotated[str, typer.Option(help="Field of a .jsonl object that holds the text.")] = "text",
    encoding_errors: Annotated[
        str, typer.Option(help="strict: stop at invalid UTF-8; replace: put U+FFFD in its place.")
    ] = "strict",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn text into the folder of shards that data.path names."""
    from parallax.data.prepare import prepare as make
    from parallax.errors import DataError

    if encoding_errors not in ("strict", "replace"):
        raise DataError(f"--encoding-errors {encoding_errors}: expected strict or replace")
    with progress_bar("encoding") as advance:
        meta = make(
            [*inputs, *(more or ())],  # a shell that expands --input *.txt leaves all but the first behind
            output,
            tokenizer=tokenizer,
            val_fraction=val_fraction,
            text_field=text_field,
            encoding_errors=encoding_errors,  # type: ignore[arg-type]
            progress=advance,
        )
    if as_json:
        print_json({"path": str(output), **meta.model_dump(mode="json")})
        return
    print_table(
        "",
        ["split", "documents", "tokens", "bytes of text"],
        [
            [name, f"{split.documents:,}", f"{split.tokens:,}", f"{split.text_bytes:,}"]
            for name, split in (("train", meta.train), ("val", meta.val))
        ],
    )
    print(f"tokenizer {meta.tokenizer}, {meta.vocab_size:,} ids; written to {output}")
    print(
        f"next: parallax train configs/tiny.yaml data.path={output} model.vocab_size={meta.vocab_size} run.dir=…"
    )
