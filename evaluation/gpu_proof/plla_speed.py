from collections.abc import Iterator

import torch

from evaluation.attention_bench import rows as timed
from evaluation.attention_bench.bandwidth import measure_bandwidth
from evaluation.attention_bench.caches import Flusher
from evaluation.attention_bench.capacity import usable_bytes
from evaluation.attention_bench.contenders import plla_contenders, sdpa
from evaluation.attention_bench.floor import Rates
from evaluation.attention_bench.measure import Bench
from evaluation.attention_bench.peers import peers
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import DECODE, TRAIN, Task
from evaluation.gpu_proof.rows import Row, failed, impossible
from evaluation.gpu_proof.setting import Setting
from parallax.metrics.peak import measure_peak

SHAPES: dict[Task, tuple[Shape, ...]] = {
    TRAIN: (Shape(4, 16, 16, 2048, 64), Shape(4, 16, 16, 2048, 128), Shape(4, 16, 4, 2048, 128)),
    DECODE: (Shape(1, 8, 8, 4096, 128), Shape(32, 8, 8, 4096, 128), Shape(1, 32, 8, 16384, 128)),
}
_WARM_UP, _ITERS, _TRIALS = 5, 10, 5
_LIMIT_SECONDS = 20.0


def check_plla_speed(setting: Setting) -> Iterator[Row]:
    """A few shapes of `evaluation.bench_train` and `evaluation.bench_decode`, in bf16, on a GPU."""
    for task, shapes in SHAPES.items():
        if not setting.on_gpu:
            command = f"for a CPU there is python -m evaluation.bench_{task.name}"
            yield from (
                impossible(f"{task.name}, {shape}", f"kernels are for CUDA; {command}") for shape in shapes
            )
            continue
        bench = make_bench(task, setting.device)
        for shape in shapes:
            yield from map(to_row, bench.measure(shape))


def make_bench(task: Task, device: torch.device) -> Bench:
    """PLLA's backends, softmax attention and other packages' kernels."""
    ours = [each for each in plla_contenders(task, device, []) if each.name != "eager"]
    conditions = timed.Setting(task.name, str(device), "bf16", "positions", _WARM_UP, _ITERS, _TRIALS)
    return Bench(
        task=task,
        device=device,
        dtype=torch.bfloat16,
        layout=conditions.layout,
        setting=conditions,
        contenders=[sdpa(), *ours, *peers(task, device, include_fa3=False)],
        rates=Rates(measure_peak(device, torch.bfloat16), measure_bandwidth(device)),
        flusher=Flusher(device),
        capacity_bytes=usable_bytes(device),
        limit_seconds=_LIMIT_SECONDS,
    )


def to_row(measured: timed.Row) -> Row:
    """What was measured of a contender, beside PyTorch's softmax attention and the hardware's floor."""
    what = f"{measured.task}, {measured.shape}: {measured.contender}"
    if measured.outcome == "failed":
        # What is not ours may fail here.
        return (failed if measured.contender in ("triton", "chunked") else impossible)(what, measured.reason)
    if measured.q50_seconds is None:
        return impossible(what, measured.reason)
    found = f"{measured.q50_seconds * 1e3:.3f} ms"
    beside = [f"{measured.ratio_to_sdpa:.2f}x the time of sdpa"] if measured.ratio_to_sdpa is not None else []
    beside += [f"{measured.over_floor:.2f}x the floor"] if measured.over_floor is not None else []
    return Row(f"{what}, {measured.cache} caches", found, reason=", ".join([*beside, measured.timer]))
