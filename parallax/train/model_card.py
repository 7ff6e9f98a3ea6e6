from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from parallax.checkpoint.locate import CHECKPOINTS_FOLDER
from parallax.checkpoint.manifest import MANIFEST_FILE, read_manifest
from parallax.checkpoint.model import SavedModel
from parallax.config.models.base import ModelConfig
from parallax.config.models.gpt2 import DriftDiffusionConfig, DuoPredictConfig
from parallax.metrics.flops import parameter_counts
from parallax.metrics.journal import Record, read_journal
from parallax.train.summary import describe_model

CARD_FILE = "README.md"
_AT_HOME = ("run", "runtime", "sample", "tracking")
"""Sections that hold addresses, paths and names, and no property of the model."""
_SHOWN_PARTS = 3
"""RUN/checkpoints/step-…"""


@dataclass(frozen=True)
class Export:
    """How a model left Parallax."""

    name: str
    """Of the folder."""
    origin: str
    """Which version wrote it."""
    command: str
    """As it was typed."""
    needs_remote_code: bool
    """Whether the folder carries code of its own."""
    eos_id: int | None
    """The id that ends a document; None: the model has no tokenizer."""


def model_card(saved: SavedModel, export: Export) -> str:
    """A README.md as the hub shows it: how to use the model, what it is, what it was measured at, how it was made.

    Figures are those of the run that the checkpoint lies in, as its journal has them at the checkpoint's step or
    last before it; what nobody measured is left out.
    """
    made = "trained" if saved.run_config is not None else "written"
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [parallax]\n---",
        f"# {export.name}",
        f"A language model of {describe_model(saved.model_config)}, {made} with Parallax.",
        _usage(export),
        "## The model\n" + _table(_model_facts(saved)) + _caution(saved.model_config),
        "## The run\n" + _table(_run_facts(saved)),
        "## How it was made\n" + _table(_origin_facts(saved, export)),
        _configuration(saved),
        "A licence is not stated here: the weights are yours, and the text that they learned from has its own.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _usage(export: Export) -> str:
    remote = ", trust_remote_code=True" if export.needs_remote_code else ""
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{export.name}"{remote})',
    ]
    if export.eos_id is not None:
        lines += [
            f'tokenizer = AutoTokenizer.from_pretrained("{export.name}"{remote})',
            'text = tokenizer("The ", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**text, max_new_tokens=40)[0]))",
        ]
    code = "\n".join(["```python", *lines, "```"])
    note = (
        "\n`modeling_parallax.py` is code that loading the model runs; it imports torch and transformers only."
        if export.needs_remote_code
        else ""
    )
    prefix = (
        f"\nDocuments were told apart by id {export.eos_id}: a text that begins a document begins with it."
        if export.eos_id is not None
        else "\nIt came without a tokenizer."
    )
    return f"## Use\n{code}{note}{prefix}"


def _model_facts(saved: SavedModel) -> dict[str, str]:
    config, counts = saved.model_config, parameter_counts(saved.model_config)
    return {
        "parameters": f"{counts.total:,}",
        "without embedding and head": f"{counts.without_embeddings:,}",
        "context": f"{config.max_seq_len:,} tokens",
        "vocabulary": f"{config.vocab_size:,} ids",
        "heads": f"{config.num_heads}, of which {config.num_kv_heads} for keys and values",
    }


def _caution(config: ModelConfig) -> str:
    """What a reader of the model's figures has to know."""
    if isinstance(config, DuoPredictConfig) and not config.is_strict and config.num_layers > 1:
        return (
            "\n\nBeside the next token it was trained to fill gaps from both sides, with the published mask,"
            " through which the answer leaks: the query of a gap sees the state of the token behind it, and from"
            " the second layer on that state has itself seen the token in the gap. How often it fills a gap"
            " rightly therefore says nothing. Its figures for the next token are fair: tokens never see queries."
        )
    if isinstance(config, DriftDiffusionConfig) and config.diffuses and not config.diffusion_at_eval:
        return "\n\nIt was trained with noise added to attention's output; no noise is drawn when it is read."
    return ""


def _run_facts(saved: SavedModel) -> dict[str, str]:
    progress: Mapping[str, Any] = saved.state.get("progress", {})
    facts = {"steps": f"{saved.step:,}"} if saved.step else {}
    if progress:
        facts |= {"tokens trained on": f"{progress['tokens']:,}", "training FLOPs": f"{progress['flops']:.3g}"}
    records = _records(saved)
    if (seconds := _last(records, "seconds")) is not None:
        facts["training time"] = f"{seconds[1]:,.0f} s"
    named = {
        "loss": ("training loss", "{:.4f} nats a token"),
        "val_loss": ("validation loss", "{:.4f} nats a token"),
        "val_bits_per_byte": ("validation bits per byte", "{:.4f}"),
        "val_perplexity": ("validation perplexity", "{:,.3f}"),
        "val_accuracy": ("validation accuracy", "{:.2%}"),
    }
    for key, (name, form) in named.items():
        if (found := _last(records, key)) is not None:
            facts[name] = f"{form.format(found[1])} (step {found[0]:,})"
    best = progress.get("best_val_loss")
    if best is not None:
        facts["lowest validation loss"] = f"{best:.4f} nats a token"
    return facts


def _origin_facts(saved: SavedModel, export: Export) -> dict[str, str]:
    facts = {
        "written by": export.origin,
        "command": f"`{export.command}`",
        "from": f"`{'/'.join(saved.path.parts[-_SHOWN_PARTS:])}`",
    }
    if (saved.path / MANIFEST_FILE).exists():
        libraries = read_manifest(saved.path).libraries
        facts["saved with"] = ", ".join(f"{name} {version}" for name, version in libraries.items())
    if saved.run_config is not None:
        sources = [source.path for source in saved.run_config.data.mixture]
        facts["text"] = ", ".join(f"`{path}`" for path in sources)
        facts["seed"] = str(saved.run_config.seed)
    if "corpus" in saved.state:
        facts["fingerprint of the text"] = f"`{saved.state['corpus']}`"
    return facts


def _configuration(saved: SavedModel) -> str:
    """What the model follows from; where the run ran and who watched it is left at home."""
    config = saved.run_config
    name = "run" if config is not None else "model"
    raw = {"model": saved.model_config.model_dump(mode="json")}
    if config is not None:
        raw = {key: value for key, value in config.resolved().items() if key not in _AT_HOME}
    text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).rstrip()
    return f"<details><summary>Configuration of the {name}</summary>\n\n```yaml\n{text}\n```\n</details>"


def _records(saved: SavedModel) -> list[Record]:
    """The run's journal up to the checkpoint; nothing where the checkpoint lies in no run."""
    if saved.run_config is None or saved.path.parent.name != CHECKPOINTS_FOLDER:
        return []
    journal = saved.path.parent.parent / "journal.jsonl"
    return [record for record in read_journal(journal) if record["step"] <= saved.step]


def _last(records: list[Record], key: str) -> tuple[int, float] | None:
    """The last step at which something was measured, and what."""
    found = [(record["step"], record[key]) for record in records if isinstance(record.get(key), int | float)]
    return found[-1] if found else None


def _table(facts: Mapping[str, str]) -> str:
    if not facts:
        return "Nothing was handed down."
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items())])
