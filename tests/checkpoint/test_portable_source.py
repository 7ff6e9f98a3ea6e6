"""The file that computes a model for transformers: what is in it, and how training's parts leave it."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parallax.checkpoint.portable.assemble import Assembly
from parallax.checkpoint.portable.facts import Facts
from parallax.checkpoint.portable.fold import fold
from parallax.checkpoint.portable.folder import portable_source
from parallax.checkpoint.portable.training import without_training_arguments
from parallax.config.models.dual_track import DualTrackConfig
from parallax.config.models.gpt2 import DriftDiffusionConfig, Gpt2Config, StrictDuoPredictConfig
from parallax.model.gpt2 import Gpt2
from parallax.model.gpt2_duo_predict import Gpt2DuoPredict

CONFIG = DualTrackConfig(num_layers=1, num_heads=2, hidden_size=16, vocab_size=11, max_seq_len=8)


@pytest.fixture(scope="module")
def text() -> str:
    return portable_source(CONFIG, "Parallax 9.9 (commit abc)")


def test_it_says_who_wrote_it_and_of_which_sources(text: str) -> None:
    documented = ast.get_docstring(ast.parse(text)) or ""
    assert "Parallax 9.9 (commit abc)" in documented
    for source in (
        "model/dual_track.py",
        "model/swiglu.py",
        "attention/softmax/sdpa.py",
        "config/models/dual_track.py",
    ):
        assert f"\n# parallax/{source}\n" in text


def test_it_imports_torch_and_transformers_only(text: str) -> None:
    packages = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add((node.module or "").partition(".")[0])
    assert {"torch", "transformers"} <= packages
    assert not packages - {"torch", "transformers"} - set(sys.stdlib_module_names)


def test_every_name_in_it_is_defined_and_every_import_is_used(text: str, tmp_path: Path) -> None:
    file = tmp_path / "modeling.py"
    file.write_text(text, encoding="utf-8")
    ruff = [str(Path(sys.executable).parent / "ruff"), "check", "--isolated", "--select=F", str(file)]
    done = subprocess.run(ruff, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "part",
    [
        "autograd.Function",
        "once_differentiable",
        "initialize",
        "_FusedLinearLoss",
        "objective",
        "noise",
        "class KVCache",
        "pydantic",
    ],
)
def test_what_only_training_needs_is_left_out(text: str, part: str) -> None:
    assert part not in text


def test_the_sources_comments_and_documentation_are_kept(text: str) -> None:
    assert "# One new query sees every key" in text
    assert "# Keys are tensors" not in text, "a comment on what was taken out goes with it"
    assert '"""K, the number of independent stacks that read the same embedding."""' in text


def test_two_private_functions_of_one_name_stay_two(text: str) -> None:
    assert "def _widened(logits" in text
    assert "def _widened_of_swiglu(weight" in text
    assert "return linear(F.silu(gate) * up, _widened_of_swiglu(self.weight, gate.shape[-1]))" in text


def test_a_model_that_needs_another_package_is_refused() -> None:
    with pytest.raises(ImportError, match=r"the model needs numpy: import numpy as np"):
        Assembly("parallax.data.windows", {}).text()


FOLDED: list[tuple[str, str]] = [
    ("if self.training:\n    a()\nb()\n", "b()\n"),
    ("if not self.training:\n    # why\n    a()\nelse:\n    b()\n", "# why\na()\n"),
    ("if torch.compiler.is_compiling():\n    a()\nelse:\n    b()\n", "a()\n"),
    ("if torch.compiler.is_compiling() and x > 1:\n    a()\nb()\n", "b()\n"),
    ("c = a if None is not None else b\n", "c = b\n"),
    ("c = None is None and a and b\n", "c = a and b\n"),
    ("c = (a or None is None) and d\n", "c = d\n"),
    ("def f(x):\n    if self.training:\n        return 1\n    return x\n", "def f(x):\n    return x\n"),
    ("def f(x):\n    if None is None:\n        return 1\n    return x\n", "def f(x):\n    return 1\n"),
    ('c = a if "gelu" == "swiglu" else b\nd = "rms" != "layer" and e\n', "c = b\nd = e\n"),
    ("def f(x):\n    key = None\n    return g(x, key)\n", "def f(x):\n    return g(x, None)\n"),
    (
        "def f(x):\n    a = None\n    a, b = x\n    return a\n",
        "def f(x):\n    a = None\n    a, b = x\n    return a\n",
    ),
    ("def f(c):\n    return g(c.noise)\n", "def f(c):\n    return g(None)\n"),
    (
        "class A:\n    def f(self):\n        self.a = None\n        self.b = 1\n\n    def g(s):\n        self.a\n",
        "class A:\n    def f(self):\n        self.b = 1\n\n    def g(s):\n        None\n",
    ),
]


@pytest.mark.parametrize(("before", "after"), FOLDED)
def test_what_cannot_happen_is_taken_out(before: str, after: str) -> None:
    assert ast.dump(ast.parse(fold(before))) == ast.dump(ast.parse(after))


def test_what_a_configuration_s_class_settles_is_put_in() -> None:
    facts = Facts.of(StrictDuoPredictConfig, Gpt2DuoPredict)
    names = {"Gpt2Config": Gpt2Config, "DriftDiffusionConfig": DriftDiffusionConfig}
    before = "a = config.norm, self.config.is_strict, config.hidden_size, config.num_layers, other.norm\n"
    assert facts.put_into(before, names.get) == before.replace("config.norm", '"layer"', 1).replace(
        "self.config.is_strict", "True"
    )
    asked = (
        "a = isinstance(config, Gpt2Config), isinstance(config, DriftDiffusionConfig), isinstance(x, Gpt2Config)\n"
    )
    assert facts.put_into(asked, names.get) == "a = True, False, isinstance(x, Gpt2Config)\n"
    assert "_positions_of" in facts.overridden
    assert "_positions_of" not in Facts.of(Gpt2Config, Gpt2).overridden


def test_a_method_that_has_come_down_to_its_argument_is_not_called() -> None:
    before = """
class Block:
    def forward(self, x, context):
        return x + self._drop(self.mlp(x), context, 1)

    def _drop(self, branch, context, site):
        if not (self.training and self.dropout):
            return branch
        return drop(branch, context.noise[site])
"""
    assert "return x + self.mlp(x)\n" in fold(before)


ARGUMENTS: list[tuple[str, str]] = [
    (
        "def f(a, noise=None, b=1):\n    return noise, b\nf(1, 2, 3)\n",
        "def f(a, b=1):\n    return None, b\nf(1, 3)\n",
    ),
    ("def f(a, *, noise=None):\n    pass\nf(1, noise=2)\n", "def f(a):\n    pass\nf(1)\n"),
    ("def f(a, targets):\n    pass\n\ndef g():\n    h(noise=1)\n", "def g():\n    h()\n"),
    (
        "class C:\n    a: int\n    noise: int\n\n\ndef f():\n    C(1, 2)\n",
        "class C:\n    a: int\n\ndef f():\n    C(1)\n",
    ),
    ("def f():\n    known(1, 2, 3)\n    other(1, 2, 3)\n", "def f():\n    known(1, 3)\n    other(1, 2, 3)\n"),
]


@pytest.mark.parametrize(("before", "after"), ARGUMENTS)
def test_training_s_arguments_leave_signatures_calls_and_fields(before: str, after: str) -> None:
    known: dict[str, Any] = {"known": ["a", "documents", "c"]}
    found = without_training_arguments(before, known.get)
    assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(after))


def test_what_is_written_about_an_argument_goes_with_it() -> None:
    before = '''
def f(a, noise=None, b=1):
    """Computes.

    Args:
        a: one.
        noise: two,
            in two lines.
        b: three.
    """
'''
    found = without_training_arguments(before, lambda name: None)
    assert "two" not in found
    assert "        a: one.\n        b: three.\n" in found
