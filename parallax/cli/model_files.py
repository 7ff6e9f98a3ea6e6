import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import parallax
from parallax.checkpoint.foreign.plain import PlainFormat, plain_format
from parallax.checkpoint.model import TOKENIZER_FILE, SavedModel
from parallax.checkpoint.model_folder import write_model_folder
from parallax.checkpoint.portable.check import check_source
from parallax.checkpoint.portable.folder import (
    GENERATION_FILE,
    MODELING_FILE,
    generation_text,
    portable_config,
    portable_source,
)
from parallax.data.tokenizer_export import transformers_texts
from parallax.data.tokenizer_files import load_tokenizer
from parallax.metrics.environment import git_state
from parallax.train.model_card import CARD_FILE, Export, model_card


@dataclass(frozen=True)
class Written:
    """What became of a model."""

    model_type: str
    """In config.json."""
    readers: str
    """Who reads the folder."""
    logit_difference: float | None = None
    """Between the model and the file that computes it for transformers; None: there is none, or it was not run."""
    remarks: tuple[str, ...] = ()
    """What else a person should know."""


def export_folder(
    saved: SavedModel, output: Path, dtype: torch.dtype | None, command: str | None = None
) -> Written:
    """Writes a model folder: as a Llama or a GPT-2 where that says it all, else in our layout.

    Args:
        saved: the model.
        output: does not exist.
        dtype: of the weights; None: as they are.
        command: what was typed, for a model card: the folder then has one, and whatever transformers needs to
            run the model; None: it gets neither.

    Raises:
        CheckpointError: `output` exists, or the code for transformers would compute something else.
        TokenizerError: transformers cannot have the tokenizer.
    """
    texts, eos_id = _tokenizer_texts(saved, plain=command is not None)
    plain, obstacle = plain_format(saved.model_config)
    written, keys, notes = _written(plain, obstacle), {}, {}
    if command is not None:
        texts = {GENERATION_FILE: generation_text(eos_id), **texts}
        if plain is None:
            source = portable_source(saved.model_config, origin())
            written = _checked(source, saved, written)
            texts[MODELING_FILE], keys = source, portable_config(saved.model_config)
        if eos_id is None:
            written = replace(written, remarks=(*written.remarks, "it has no tokenizer: ids only"))
        made = Export(output.name, origin(), command, plain is None, eos_id)
        notes = {CARD_FILE: model_card(saved, made)}
    write_model_folder(
        output,
        saved.model_config,
        saved.weights,
        texts,
        step=saved.step,
        dtype=dtype,
        eos_id=eos_id,
        plain=plain,
        config_keys=keys,
        notes=notes,
    )
    return written


def origin() -> str:
    """Parallax 0.1.0 (commit 1234567, with changes)."""
    git = git_state(Path(parallax.__file__).parent)
    commit = f" (commit {git.commit[:12]}{', with changes' if git.dirty else ''})" if git is not None else ""
    return f"Parallax {parallax.__version__}{commit}"


def _written(plain: PlainFormat | None, obstacle: str | None) -> Written:
    if plain is not None:
        return Written(plain.model_type, "transformers and Parallax read it")
    return Written("parallax", f"Parallax reads it ({obstacle})")


def _checked(source: str, saved: SavedModel, written: Written) -> Written:
    """The file computes what the model computes, where transformers is there to run it."""
    readers = "transformers (trust_remote_code=True) and Parallax read it"
    if find_spec("transformers") is None:
        remark = "not checked: transformers is not installed here; pip install transformers to compare the logits"
        return replace(written, readers=readers, remarks=(remark,))
    difference = check_source(source, saved.model_config, saved.weights, saved.path)
    remark = f"checked: its logits differ from the model's by at most {difference:.1e}"
    return replace(written, readers=readers, logit_difference=difference, remarks=(remark,))


def _tokenizer_texts(saved: SavedModel, *, plain: bool) -> tuple[dict[str, str], int | None]:
    """The tokenizer's files, and the id that ends a document; nothing where the model came without one.

    Args:
        saved: the model.
        plain: in the form that transformers reads, also where the model came with another.
    """
    if TOKENIZER_FILE not in saved.texts:
        return dict(saved.texts), None
    tokenizer = load_tokenizer(saved.path)
    if saved.run_config is None and not (plain and _is_ours(saved.texts)):
        return dict(saved.texts), tokenizer.eos_id
    texts = transformers_texts(tokenizer, saved.model_config.max_seq_len)
    return {**(saved.texts if saved.run_config is None else {}), **texts}, tokenizer.eos_id


def _is_ours(texts: Mapping[str, str]) -> bool:
    """Whether a tokenizer.json is in our own form, which only Parallax reads."""
    definition: Any = json.loads(texts[TOKENIZER_FILE])
    return "model" not in definition
