"""Memory and speed rows follow from what was measured."""

import pytest
import torch

from evaluation.bench.figures import Timing
from evaluation.gpu_proof import memory, speed
from evaluation.gpu_proof.setting import Setting
from parallax.config.load import load_config
from parallax.metrics.flops import train_flops_per_token
from parallax.metrics.footprint import MemoryEstimate
from parallax.metrics.peak import Peak

CPU = Setting(torch.device("cpu"), quick=True)
ESTIMATE = MemoryEstimate(100 << 20, 100 << 20, 200 << 20, 500 << 20, 100 << 20)


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.59, "fail"), (0.61, "pass"), (1.0, "pass"), (1.04, "pass"), (1.06, "fail")]
)
def test_a_peak_over_the_estimate_or_far_below_it_fails(share: float, verdict: str) -> None:
    row = memory.judge("a step", round(share * ESTIMATE.total_bytes), ESTIMATE)
    assert row.verdict == verdict
    assert row.found.endswith(f"{share:.2f} of the estimate")
    assert row.expected == "0.6 to 1.05 of 1,000 MiB"
    assert row.reason == "estimated states 400, activations 500, head 100 MiB"


def test_a_size_that_does_not_fit_is_left_out_with_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 << 30, 8 << 30))
    card = Setting(torch.device("cuda", 0), quick=False)
    assert memory.why_not_measured(card, 3 << 30) is None
    assert memory.why_not_measured(card, 4 << 30) == "needs 4.0 GiB of 4.0 GiB free"
    assert memory.why_not_measured(CPU, 1 << 30) == "only CUDA counts the peak of tensors; estimated: 1,024 MiB"


def test_speed_rows_give_rate_utilisation_and_the_ratio_round_by_round() -> None:
    shape = speed.Shape("overfit", 8, steps=2, rounds=3, whole_peer=False)
    config = load_config("configs/overfit.yaml")
    tokens = 2 * 8 * config.model.max_seq_len
    timings = {
        "parallax eager": Timing(9.0, [1.0, 2.0, 4.0]),
        "llama eager": Timing(8.0, [3.0, 4.0, 4.0]),
    }
    peak = Peak(2.0 * train_flops_per_token(config.model, config.model.max_seq_len) * tokens, "told")
    ours, theirs, ratio = speed.figures(shape, config, timings, peak)
    assert ours.found == f"{tokens / 2:,.0f} tokens/s, MFU 25.0%"
    assert ours.reason == "first call 9 s; peak: told"
    assert theirs.found.startswith(f"{tokens / 4:,.0f} tokens/s")
    assert (ratio.what, ratio.found) == ("overfit: parallax over llama, eager", "2.00x")
    assert {row.verdict for row in (ours, theirs, ratio)} == {"measured"}


def test_without_a_known_peak_there_is_no_utilisation() -> None:
    shape = speed.Shape("overfit", 8, steps=2, rounds=1, whole_peer=True)
    rows = list(
        speed.figures(
            shape, load_config("configs/overfit.yaml"), {"parallax eager": Timing(9.0, [1.0])}, Peak(None, "n/a")
        )
    )
    assert "MFU" not in rows[0].found
    assert len(rows) == 1
