import tempfile
import traceback
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from evaluation.gpu_proof.layout_cases import ONE_RANK, TWO_RANKS, Case, Outcome, alone, train, whole
from evaluation.gpu_proof.rows import Row, bounded, failed, impossible
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import worst_error

_GROUP_SECONDS = 60


class Limits(NamedTuple):
    """Relative errors against one process."""

    scalars: float
    """Of losses and gradient norms."""
    gradients: float
    weights: float
    """After two steps of AdamW, which turns rounding of gradients near zero into whole updates."""


LIMITS = {torch.float64: Limits(1e-10, 1e-10, 1e-10), torch.float32: Limits(1e-5, 1e-4, 1e-3)}


def check_layouts(setting: Setting) -> Iterator[Row]:
    """Every layout that the devices allow against one process: losses, norms, gradients, weights."""
    backend = "nccl" if setting.on_gpu else "gloo"
    devices = torch.cuda.device_count() if setting.on_gpu else 2
    yield from _compare(setting, backend, 1, ONE_RANK)
    if devices >= 2:
        yield from _compare(setting, backend, 2, TWO_RANKS)
        return
    for case in TWO_RANKS:
        yield impossible(f"{backend}: {case.name}", "NCCL needs a GPU for each of 2 ranks; one is here")


def _compare(setting: Setting, backend: str, num_ranks: int, cases: Sequence[Case]) -> Iterator[Row]:
    dtype = torch.float32 if setting.on_gpu else torch.float64
    with tempfile.TemporaryDirectory() as folder:
        kind = setting.device.type
        arguments = (num_ranks, backend, kind, dtype, cases, folder, setting.quick)
        spawn(serve, arguments, nprocs=num_ranks)  # type: ignore[no-untyped-call]
        for number, case in enumerate(cases):
            what = f"{backend}, {str(dtype).removeprefix('torch.')}: {case.name}"
            found = [load(folder, number, rank) for rank in range(num_ranks)]
            errors = [text for text in found if isinstance(text, str)]
            if errors:
                yield failed(what, errors[0])
                continue
            expected = train(alone(case), setting.device, dtype, quick=setting.quick)
            yield from judge(what, found, expected, LIMITS[dtype])


def judge(what: str, found: Sequence[Outcome], expected: Outcome, limits: Limits) -> Iterator[Row]:
    """Three rows: scalars as every rank has them, gradients and weights put together from all ranks."""
    worst = max(
        abs(mine / true - 1)
        for outcome in found
        for field in ("losses", "norms")
        for mine, true in zip(getattr(outcome, field), getattr(expected, field), strict=True)
    )
    yield bounded(f"{what}: losses and norms", worst, limits.scalars)
    for field, limit in (("gradients", limits.gradients), ("weights", limits.weights)):
        got = whole([getattr(outcome, field) for outcome in found])
        error, name = worst_error(got, whole([getattr(expected, field)]))
        yield bounded(f"{what}: worst of the {field}", error, limit, name)


def serve(
    rank: int,
    num_ranks: int,
    backend: str,
    kind: str,
    dtype: torch.dtype,
    cases: Sequence[Case],
    folder: str,
    quick: bool,
) -> None:
    """One rank: trains every case and leaves its outcome, or the error's last line, in the folder."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        backend,
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(seconds=_GROUP_SECONDS),
        device_id=device if kind == "cuda" else None,
    )
    for number, case in enumerate(cases):
        try:
            outcome: Any = train(case, device, dtype, quick=quick)
        except Exception:
            outcome = traceback.format_exc(limit=-3)
        torch.save(outcome, _path(folder, number, rank))
    dist.destroy_process_group()


def load(folder: str, number: int, rank: int) -> Any:
    """What a rank left of a case."""
    return torch.load(_path(folder, number, rank), weights_only=False)


def _path(folder: str, number: int, rank: int) -> Path:
    return Path(folder, f"{number}-{rank}.pt")
