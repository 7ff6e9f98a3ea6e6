from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from evaluation.gpu_proof.rows import Row, impossible, measured_peak
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import build_engine, forward_backward, random_windows
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.metrics.footprint import MemoryEstimate, memory_estimate
from parallax.model.head import Objective
from parallax.runtime.device import PrecisionName
from parallax.train.planning.advice import with_settings

LOWEST, HIGHEST = 0.6, 1.05
"""The estimate is an upper bound of tensors that are not all there at one moment."""
_USABLE = 0.85


@dataclass(frozen=True)
class Case:
    """One size at which a training step's memory is measured."""

    config: str
    micro_batch: int
    precision: PrecisionName
    activation_checkpointing: bool = False

    @property
    def what(self) -> str:
        """Its name in the table."""
        recomputed = ", activation checkpointing" if self.activation_checkpointing else ""
        return f"{self.config}, {self.micro_batch} windows, {self.precision}{recomputed}"

    def planned(self, config: RunConfig) -> RunConfig:
        """The run whose steps are made: the engine of these checks takes the loss in default chunks."""
        settings = {
            "train.micro_batch": self.micro_batch,
            "train.precision": self.precision,
            "train.activation_checkpointing": self.activation_checkpointing,
            "loss.chunk_tokens": Objective().chunk_tokens,
        }
        return with_settings(config, settings)


CASES = (
    Case("tiny", 8, "fp32"),
    Case("reference", 4, "bf16"),
    Case("reference", 16, "bf16"),
    Case("base", 4, "bf16", activation_checkpointing=True),
)


def check_memory(setting: Setting) -> Iterator[Row]:
    """Peak of the tensors on the GPU in two training steps against the estimate that a user is shown."""
    for case in CASES[:2] if setting.quick else CASES:
        config = load_config(f"configs/{case.config}.yaml")
        estimate = memory_estimate(
            config.model, case.micro_batch, case.precision, case.activation_checkpointing, config.loss.chunk_tokens
        )
        why_not = why_not_measured(setting, estimate.total_bytes)
        if why_not is not None:
            yield impossible(case.what, why_not)
            continue
        peak_bytes = _peak_bytes(setting, case)
        yield replace(
            judge(case.what, peak_bytes, estimate), measured=measured_peak(case.planned(config), peak_bytes)
        )


def why_not_measured(setting: Setting, expected_bytes: int) -> str | None:
    """What keeps a step of this size from being measured here, or None."""
    if not setting.on_gpu:
        return f"only CUDA counts the peak of tensors; estimated: {expected_bytes / 2**20:,.0f} MiB"
    free, _ = torch.cuda.mem_get_info(setting.device)
    if expected_bytes > _USABLE * free:
        return f"needs {expected_bytes / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free"
    return None


def judge(what: str, peak_bytes: int, estimate: MemoryEstimate) -> Row:
    """Passes if the peak lies under the estimate, and not so far that the estimate says nothing."""
    share = peak_bytes / estimate.total_bytes
    states = estimate.weights_bytes + estimate.gradients_bytes + estimate.optimizer_bytes
    return Row(
        what,
        f"{peak_bytes / 2**20:,.0f} MiB, {share:.2f} of the estimate",
        f"{LOWEST:g} to {HIGHEST:g} of {estimate.total_bytes / 2**20:,.0f} MiB",
        "pass" if LOWEST <= share <= HIGHEST else "fail",
        f"estimated states {states / 2**20:,.0f}, activations {estimate.activations_bytes / 2**20:,.0f}, "
        f"head {estimate.logits_bytes / 2**20:,.0f} MiB",
    )


def _peak_bytes(setting: Setting, case: Case) -> int:
    config = load_config(f"configs/{case.config}.yaml").model
    _make_workspaces(setting.device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(setting.device)
    torch.cuda.reset_peak_memory_stats(setting.device)
    engine = build_engine(
        config, setting.device, case.precision, activation_checkpointing=case.activation_checkpointing
    )
    for number in range(2):
        forward_backward(engine, random_windows(config, case.micro_batch, seed=number))
        engine.clip_and_step(1e-3)
    return torch.cuda.max_memory_allocated(setting.device) - before


def _make_workspaces(device: torch.device) -> None:
    """Has cuBLAS make its workspaces, one for each thread of a training step, whatever the model's size.

    They stay for the process's life.
    """
    square = torch.ones(64, 64, device=device, requires_grad=True)
    (square @ square).sum().backward()  # type: ignore[no-untyped-call]
