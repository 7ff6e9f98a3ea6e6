import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from parallax.checkpoint.load import load_weights
from parallax.checkpoint.portable.folder import portable_config
from parallax.config.models.base import ModelConfig
from parallax.errors import CheckpointError
from parallax.model.registry import build_model, materialize

_MOST_TOKENS = 32
_ALLOWED = 1e-4
"""Of the largest logit: far above rounding in fp32, far below what a wrong model gives."""


@torch.no_grad()
def check_source(text: str, config: ModelConfig, weights: Mapping[str, Tensor], source: Path) -> float:
    """The largest difference between the logits of a model and of the file made of it, both in fp32.

    Two rows are read, the second again with padding on its left. Both models share their weights.

    Args:
        text: of the file, see `portable_source`.
        config: of the model.
        weights: by our names.
        source: where the weights come from, for a message.

    Raises:
        CheckpointError: the file computes something else.
        ImportError: transformers is not installed.
    """
    ours = materialize(build_model(config, attention_backend="eager"), "cpu").eval()
    load_weights(ours, weights, source=source)
    theirs = _build(_imported(text), config)
    theirs.load_state_dict({f"model.{name}": tensor for name, tensor in ours.state_dict().items()}, assign=True)
    theirs.eval()
    length = min(config.max_seq_len, _MOST_TOKENS)
    rows = (torch.arange(2 * length) * 7919 % config.vocab_size).view(2, length)
    expected = ours(rows)
    assert isinstance(expected, Tensor)
    half = length // 2
    padded = torch.cat((torch.zeros_like(rows[:, :half]), rows[:, : length - half]), 1)
    mask = (torch.arange(length) >= half).long().expand(2, -1)
    worst = max(
        _difference(theirs(input_ids=rows).logits, expected),
        _difference(theirs(input_ids=padded, attention_mask=mask).logits[:, half:], expected[:, : length - half]),
    )
    if not worst <= _ALLOWED * max(1.0, float(expected.abs().max())):  # also false for NaN
        raise CheckpointError(
            f"{source}: the file made for transformers gives logits that differ by {worst:.1e} from the model's; "
            "nothing was written; please report this with the model's configuration"
        )
    return worst


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())


def _imported(text: str) -> ModuleType:
    """The file as a module; imported from a file, as transformers looks at the sources of what it runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "modeling_parallax_check.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[path.stem]
    return module


def _build(module: ModuleType, config: ModelConfig) -> Any:
    described = module.ParallaxConfig(
        model=config.model_dump(mode="json"), vocab_size=config.vocab_size, **portable_config(config)
    )
    with torch.device("meta"):
        return module.ParallaxForCausalLM(described)
