import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parallax.config.layout import Layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError
from parallax.train.planning.fit import MIB

WITHIN = 0.10
"""A measured peak that lies further from the planned one clears nothing."""


@dataclass(frozen=True)
class Measured:
    """The peak of the tensors that a run of some shape had on a GPU."""

    shape: dict[str, Any]
    """See `shape_of`."""
    peak_bytes: int
    device: str


def shape_of(config: RunConfig, layout: Layout) -> dict[str, Any]:
    """All that a rank's peak depends on, as plain values: two runs of one shape hold the same."""
    train, tokens = config.train, config.train.micro_batch * config.model.max_seq_len
    shape = {
        "model": config.model.model_dump(mode="json"),
        "micro_batch": train.micro_batch,
        "precision": "bf16" if train.precision == "auto" else train.precision,
        "activation_checkpointing": train.activation_checkpointing,
        "freeze": list(train.freeze),
        "chunk_tokens": min(config.loss.chunk_tokens, tokens),
        "document_mask": config.data.document_mask,
        "attention_backend": config.runtime.attention_backend,
        "layout": asdict(layout),
        "shared": config.parallel.shared if layout.track > 1 else None,
        "reshard_after_forward": config.parallel.reshard_after_forward if layout.dp_shard > 1 else None,
        "zero": config.deepspeed.model_dump(mode="json") if config.parallel.engine == "deepspeed" else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(shape))
    return plain


def read_measured(path: str | Path) -> list[Measured]:
    """What a results file of `make gpu-proof` says of memory.

    Raises:
        ConfigError: it cannot be read, or is no such file, or was not written on a GPU.
    """
    try:
        content = json.loads(Path(path).read_text())
        machine, checks = content["machine"], content["checks"]
        rows = [row for check in checks.values() for row in check]
    except OSError as error:
        raise ConfigError(
            f"--measured {path}: {error.strerror}; give the .json file that gpu-proof wrote"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"--measured {path} is no results file; `make gpu-proof` writes runs/gpu-proof.json"
        ) from None
    if "cuda" not in machine:
        raise ConfigError(f"--measured {path} was written on {machine.get('device')}, not on a GPU; run it on one")
    found = [row["measured"] for row in rows if row.get("measured")]
    return [Measured(each["shape"], each["peak_bytes"], machine["device"]) for each in found]


def mark_of(measured: list[Measured], config: RunConfig, layout: Layout, planned_bytes: int) -> tuple[bool, str]:
    """Whether a GPU confirmed a plan, and the words that a plan carries for it.

    Args:
        measured: see `read_measured`.
        config: of the run.
        layout: of its ranks.
        planned_bytes: in tensors at the peak.
    """
    wanted = shape_of(config, layout)
    found = next((each for each in measured if each.shape == wanted), None)
    if found is None:
        return False, "not measured on a GPU"
    held = f"{found.device} held {found.peak_bytes / MIB:,.1f} MiB in tensors, planned {planned_bytes / MIB:,.1f}"
    error = planned_bytes / found.peak_bytes - 1
    if abs(error) <= WITHIN:
        return True, f"measured: {held} ({error:+.1%})"
    return False, f"not confirmed on a GPU: {held} ({error:+.1%})"
