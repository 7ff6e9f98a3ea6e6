"""The comparisons see an error of the size that they are there to see."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluation.gpu_proof import attention, determinism, layout_cases, layouts, scaling, step
from evaluation.gpu_proof.decoding import matching
from evaluation.gpu_proof.rows import Row
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import (
    CPU,
    build_engine,
    forward_backward,
    gradients,
    random_windows,
    relative_error,
    small_config,
    worst_error,
)
from parallax.attention.softmax.sdpa import SdpaSoftmax

QUICK = Setting(CPU, quick=True)
CONFIG = small_config(quick=True)


def verdicts(rows: Any) -> list[str]:
    return [row.verdict for row in rows]


def test_errors_are_relative_and_a_nan_is_the_worst() -> None:
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    one, two = torch.ones(2), torch.ones(2) * 2
    error, name = worst_error({"a": one, "b": two, "c": one * float("nan")}, {"a": one, "b": one, "c": one})
    assert (error != error, name) == (True, "c")
    with pytest.raises(ValueError, match="other names"):
        worst_error({"a": one}, {"b": one})


class _Wrong(SdpaSoftmax):
    """Attention whose outputs, or gradients only, are off by two per cent."""

    def __init__(self, *, outputs: bool) -> None:
        self._outputs = outputs

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        right = super().attend(q, k, v, mask)
        return right * 1.02 if self._outputs else right.detach() * -0.02 + right * 1.02


@pytest.mark.parametrize("masked", [False, True])
def test_attention_that_is_off_fails_in_outputs_or_gradients(masked: bool) -> None:
    problem = attention.make_problem(QUICK, grouped=True, masked=masked).to(torch.float32)
    assert attention.compare("right", SdpaSoftmax(), problem).verdict == "pass"
    for outputs in (True, False):
        assert attention.compare("wrong", _Wrong(outputs=outputs), problem).verdict == "fail"


def test_a_kernel_that_pytorch_lacks_is_named_impossible_and_an_error_of_a_kernel_fails() -> None:
    class Refused(SdpaSoftmax):
        text = "No available kernel. Aborting execution."

        def attend(self, *_: Any) -> Tensor:
            raise RuntimeError(self.text)

    problem = attention.make_problem(QUICK, grouped=False, masked=False).to(torch.float32)
    kernel = torch.nn.attention.SDPBackend.MATH
    assert attention.compare("refused", Refused(), problem, kernel).verdict == "not possible here"
    assert attention.compare("of its own", Refused(), problem).verdict == "fail"
    Refused.text = "illegal memory access"
    assert attention.compare("broken", Refused(), problem, kernel).verdict == "fail"


def test_a_step_off_by_one_gradient_of_many_fails_by_its_name() -> None:
    windows = random_windows(CONFIG, 2)
    exact = step.measure(build_engine(CONFIG, CPU, dtype=torch.float64), windows)
    right = step.measure(build_engine(CONFIG, CPU), windows)
    assert verdicts(step.compare("right", right, exact, step.LIMITS["fp32"])) == ["pass"] * 3
    name = "tracks.1.blocks.0.mlp_norm.weight"
    wrong = right._replace(gradients={**right.gradients, name: right.gradients[name] * 1.001})
    rows = list(step.compare("wrong", wrong, exact, step.LIMITS["fp32"]))
    assert verdicts(rows) == ["pass", "pass", "fail"]
    assert rows[2].reason.endswith(name)


def test_gradients_come_without_the_loss_scale() -> None:
    windows, found = random_windows(CONFIG, 2), []
    for scale in (1.0, 1024.0):
        engine = build_engine(CONFIG, CPU, "fp16")
        engine.load_extra_state({**engine.extra_state(), "scale": scale})
        forward_backward(engine, windows)
        found.append(gradients(engine))
    assert worst_error(*found)[0] < 1e-2


def test_a_checkpoint_carries_weights_moments_and_scale_and_one_bit_shows(tmp_path: Path) -> None:
    saved, restored = (build_engine(CONFIG, CPU, "fp16", seed=seed) for seed in (1, 2))
    forward_backward(saved, random_windows(CONFIG, 2))
    saved.clip_and_step(1e-3)
    assert determinism.differing(saved, restored) > 0
    determinism.save(saved, tmp_path, 1)
    determinism.restore(restored, tmp_path)
    assert determinism.differing(saved, restored) == 0
    assert restored.extra_state() == saved.extra_state()
    for engine in (saved, restored):
        forward_backward(engine, random_windows(CONFIG, 2, seed=5))
        engine.clip_and_step(1e-3)
    assert determinism.differing(saved, restored) == 0, "the moments too"
    with torch.no_grad():
        restored.model.norm.weight[3] = torch.nextafter(restored.model.norm.weight[3], torch.tensor(9.0))
    assert determinism.differing(saved, restored) == 1


def test_tokens_match_until_rows_part() -> None:
    assert matching([[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5]]) == 5
    assert matching([[1, 2, 3], [4, 5]], [[1, 9, 3], [4, 6]]) == 2


def test_layouts_are_judged_over_the_rows_of_all_ranks() -> None:
    expected = layout_cases.train(layout_cases.Case("alone"), CPU, torch.float64, quick=True)
    limits = layouts.LIMITS[torch.float64]
    halves = [_half(expected, first) for first in (True, False)]
    assert verdicts(layouts.judge("right", halves, expected, limits)) == ["pass"] * 3
    first, rows = halves[1].gradients["embedding.weight"]
    wrong = {**halves[1].gradients, "embedding.weight": (first, rows * (1 + 1e-8))}
    found = list(layouts.judge("wrong", [halves[0], halves[1]._replace(gradients=wrong)], expected, limits))
    assert verdicts(found) == ["pass", "fail", "pass"]
    slower = halves[0]._replace(norms=[norm * (1 + 1e-8) for norm in expected.norms])
    assert verdicts(layouts.judge("one rank's norm", [slower, halves[1]], expected, limits))[0] == "fail"


def test_rows_that_no_rank_holds_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"embedding\.weight: rows that no rank holds"):
        layout_cases.whole(
            [{"embedding.weight": (0, torch.ones(2, 3))}, {"embedding.weight": (3, torch.ones(1, 3))}]
        )


def _half(outcome: layout_cases.Outcome, first: bool) -> layout_cases.Outcome:
    """What one of two ranks would hold."""

    def cut(tensors: dict[str, tuple[int, Tensor]]) -> dict[str, tuple[int, Tensor]]:
        parts = {}
        for name, (_, rows) in tensors.items():
            middle = len(rows) // 2
            parts[name] = (0, rows[:middle]) if first else (middle, rows[middle:])
        return parts

    return outcome._replace(gradients=cut(outcome.gradients), weights=cut(outcome.weights))


def test_loss_scaling_that_does_not_survive_a_resume_or_skips_nothing_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaling, "_STEPS", 4)
    monkeypatch.setattr(torch.amp.GradScaler, "load_state_dict", lambda self, state: None)
    rows: list[Row] = list(scaling.check_scaling(QUICK))
    failing = {row.what for row in rows if row.verdict == "fail"}
    assert "scale after it, in powers of two" in failing
    assert "gradient norm of a forced overflow is finite" in failing
