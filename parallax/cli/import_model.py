from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parallax.cli.output import print_json

if TYPE_CHECKING:
    from torch import Tensor

    from parallax.config.models.base import ModelConfig
    from parallax.data.tokenizer import Tokenizer

_FORMATS = ("auto", "original", "transformers")


def import_model(
    source: Annotated[Path, typer.Argument(help="A file of weights, or a folder of transformers.")],
    output: Annotated[Path, typer.Option(help="Model folder to make; must not exist.")],
    layout: Annotated[
        str, typer.Option("--format", help="original, transformers; auto: a file or a folder.")
    ] = "auto",
    config: Annotated[
        Path | None, typer.Option(help="original: its configuration, .json or .pt; default: found beside it.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="byte, a tokenizer.json or its folder, a hub name; none: without one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a model folder of a model from elsewhere."""
    from parallax.checkpoint.model_folder import read_texts, write_model_folder
    from parallax.data.tokenizer_export import transformers_texts
    from parallax.data.tokenizer_files import TOKENIZER_FILE
    from parallax.metrics.flops import parameter_counts

    found, weights = _read(source, layout, config)
    chosen = _choose_tokenizer(tokenizer, source, found.vocab_size)
    texts = read_texts(source) if source.is_dir() and tokenizer is None else {}
    if chosen is not None and TOKENIZER_FILE not in texts:
        texts = {**texts, **transformers_texts(chosen, found.max_seq_len)}
    write_model_folder(output, found, weights, texts, eos_id=chosen.eos_id if chosen else None)
    parameters = parameter_counts(found).total
    if as_json:
        print_json({"path": str(output), "parameters": parameters, "model": found.model_dump(mode="json")})
        return
    print(
        f"{source}: {found.num_tracks} track(s) x {found.layers_per_track} layers x {found.num_loops} pass(es), "
        f"{found.hidden_size} wide, {parameters:,} parameters"
    )
    ids = f"{chosen.vocab_size:,} ids" if chosen else "none; text cannot be read or written with it"
    print(f"tokenizer: {ids}; written to {output}")
    if chosen is not None:
        print(f"next: parallax generate {output} --prompt …")
        print(f"      parallax eval {output} --data TEXT.txt --max-seq-len {min(found.max_seq_len, 512)}")
        print(f"      parallax train {output}/config.yaml train.init_from={output} data.path=… train.max_steps=…")


def _read(source: Path, layout: str, config: Path | None) -> "tuple[ModelConfig, Mapping[str, Tensor]]":
    from parallax.checkpoint.foreign.original import read_original
    from parallax.checkpoint.model import read_model
    from parallax.checkpoint.model_folder import is_model_folder
    from parallax.errors import CheckpointError, ConfigError

    if layout not in _FORMATS:
        raise ConfigError(f"--format {layout}: expected {', '.join(_FORMATS)}")
    if not source.exists():
        raise CheckpointError(
            f"{source}: no such file or folder; expected weights (.pt, .safetensors) or a folder"
        )
    if layout == "original" or (layout == "auto" and source.is_file()):
        return read_original(source, config)
    if config is not None:
        raise ConfigError(f"--config {config}: a folder has its own config.json; drop --config")
    if not is_model_folder(source):
        raise CheckpointError(
            f"{source} has no config.json; expected a folder as transformers saves it, or name the file of weights"
        )
    saved = read_model(source)  # compared with its manifest where it has one
    return saved.model_config, saved.weights


def _choose_tokenizer(spec: str | None, source: Path, vocab_size: int) -> "Tokenizer | None":
    """The tokenizer of the model: the one asked for, else the one in its folder."""
    from parallax.data.build_tokenizer import build_tokenizer, is_learned
    from parallax.data.tokenizer_files import TOKENIZER_FILE, has_tokenizer, load_tokenizer
    from parallax.errors import TokenizerError

    if spec == "none":
        return None
    if spec is None:
        if not has_tokenizer(source):
            raise TokenizerError(
                f"{source} comes without a {TOKENIZER_FILE}; give the tokenizer it was trained with, "
                f"--tokenizer byte, a {TOKENIZER_FILE} or a hub name, or --tokenizer none to do without text"
            )
        found = load_tokenizer(source)
    elif is_learned(spec):
        raise TokenizerError(
            f"--tokenizer {spec} would be learned from text, and these weights have theirs; name it"
        )
    else:
        found = build_tokenizer(spec, list)
    if found.vocab_size > vocab_size:
        raise TokenizerError(
            f"the tokenizer has {found.vocab_size:,} ids and the model {vocab_size:,}; give --tokenizer with the "
            f"one it was trained with"
        )
    return found
