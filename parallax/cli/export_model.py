import shlex
from pathlib import Path
from typing import Annotated

import typer

from parallax.cli.output import print_json

_FORMATS = ("auto", "transformers")


def export_model(
    checkpoint: Annotated[str, typer.Argument(help="A run folder, a checkpoint in it, or a model folder.")],
    output: Annotated[Path, typer.Option(help="Model folder to make; must not exist.")],
    layout: Annotated[
        str, typer.Option("--format", help="auto; transformers: with the code that runs it, and a model card.")
    ] = "auto",
    dtype: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16; default: as it was saved.")] = None,
    push: Annotated[str | None, typer.Option(metavar="NAME", help="Upload it to the hub, as OWNER/NAME.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a model folder: weights, configuration, tokenizer.

    One track in one pass is written as a Llama, which transformers reads. Other models are read by Parallax, and
    with --format transformers by transformers too, through a file of code that goes with them.
    """
    from parallax.checkpoint.hub import push_folder
    from parallax.checkpoint.model import read_model
    from parallax.cli.model import parse_dtype
    from parallax.cli.model_files import export_folder
    from parallax.errors import ConfigError

    if layout not in _FORMATS:
        raise ConfigError(f"--format {layout}: expected {', '.join(_FORMATS)}")
    if private and push is None:
        raise ConfigError("--private says how --push makes the repository; give --push, or drop it")
    wanted = parse_dtype(dtype) if dtype is not None else None
    saved = read_model(checkpoint)
    more = [*(["--dtype", dtype] if dtype else []), *(["--push", push] if push else [])]
    command = shlex.join(["parallax", "export", checkpoint, "--output", str(output), "--format", layout, *more])
    written = export_folder(saved, output, wanted, command if layout == "transformers" else None)
    if not as_json:
        print(f"{saved.path}, step {saved.step}: written to {output} as {written.model_type}; {written.readers}")
        for line in written.remarks:
            print(line)
    address = push_folder(output, push, private=private) if push is not None else None
    if as_json:
        figures = {"path": str(output), "model_type": written.model_type, "step": saved.step}
        print_json({**figures, "logit_difference": written.logit_difference, "pushed_to": address})
    elif address is not None:
        print(f"pushed to {address}")
    else:
        print(f"next: parallax generate {output} --prompt …")
