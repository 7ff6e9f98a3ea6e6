"""Every check has a CPU twin: the whole command runs without a GPU and finds nothing wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.gpu_proof.checks import CHECKS

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_proof_passes_on_a_cpu_and_skips_nothing_silently(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--quick", "--patience", "4", "--output", str(tmp_path / "proof")]
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.gpu_proof", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "proof.json").read_text())
    assert list(content["checks"]) == [check.name for check in CHECKS]
    rows = {name: list(found) for name, found in content["checks"].items()}
    assert content["counts"]["fail"] == 0
    for name in ("attention", "plla", "step", "scaling", "layouts", "determinism", "compile", "decoding"):
        assert any(row["verdict"] == "pass" for row in rows[name]), name
    left_out = [row for found in rows.values() for row in found if row["verdict"] == "not possible here"]
    assert all(row["reason"] for row in left_out)
    assert {row["what"] for row in left_out} >= {"flash", "triton", "tiny, 8 windows, fp32"}
    assert sum("gloo, float64" in row["what"] for row in rows["layouts"]) == 3 * 6
    assert any("parallax over llama, compiled" in row["what"] for row in rows["speed"])
    assert {row["verdict"] for row in rows["plla_speed"]} == {"not possible here"}
    table = (tmp_path / "proof.md").read_text()
    assert all(f"## {check.title}" in table for check in CHECKS)
