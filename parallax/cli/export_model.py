from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallax.cli.output import print_json

if TYPE_CHECKING:
    from parallax.checkpoint.model import SavedModel


def export_model(
    checkpoint: Annotated[str, typer.Argument(help="A run folder, a checkpoint in it, or a model folder.")],
    output: Annotated[Path, typer.Option(help="Model folder to make; must not exist.")],
    dtype: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16; default: as it was saved.")] = None,
    push: Annotated[str | None, typer.Option(metavar="NAME", help="Upload it to the hub, as OWNER/NAME.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a model folder: weights, configuration, tokenizer.

    One track in one pass is written as a Llama, which transformers reads; other models are read by Parallax.
    """
    from parallax.checkpoint.foreign.llama import why_not_llama
    from parallax.checkpoint.hub import push_folder
    from parallax.checkpoint.model import read_model
    from parallax.checkpoint.model_folder import write_model_folder
    from parallax.cli.model import parse_dtype
    from parallax.errors import ConfigError

    if private and push is None:
        raise ConfigError("--private says how --push makes the repository; give --push, or drop it")
    wanted = parse_dtype(dtype) if dtype is not None else None
    saved = read_model(checkpoint)
    texts, eos_id = _tokenizer(saved)
    obstacle = why_not_llama(saved.model_config)
    write_model_folder(
        output,
        saved.model_config,
        saved.weights,
        texts,
        step=saved.step,
        dtype=wanted,
        eos_id=eos_id,
        plain_llama=obstacle is None,
    )
    kind = "llama" if obstacle is None else "parallax"
    if not as_json:
        reader = "transformers and Parallax read it" if obstacle is None else f"Parallax reads it ({obstacle})"
        print(f"{saved.path}, step {saved.step}: written to {output} as {kind}; {reader}")
    address = push_folder(output, push, private=private) if push is not None else None
    if as_json:
        print_json({"path": str(output), "model_type": kind, "step": saved.step, "pushed_to": address})
    elif address is not None:
        print(f"pushed to {address}")
    else:
        print(f"next: parallax generate {output} --prompt …")


def _tokenizer(saved: "SavedModel") -> tuple[dict[str, str], int | None]:
    """The tokenizer's files, and the id that ends a document; nothing where the model came without one."""
    from parallax.checkpoint.model import TOKENIZER_FILE
    from parallax.data.tokenizer_export import transformers_texts
    from parallax.data.tokenizer_files import load_tokenizer

    if TOKENIZER_FILE not in saved.texts:
        return dict(saved.texts), None
    tokenizer = load_tokenizer(saved.path)
    if saved.run_config is None:
        return dict(saved.texts), tokenizer.eos_id
    return transformers_texts(tokenizer, saved.model_config.max_seq_len), tokenizer.eos_id
