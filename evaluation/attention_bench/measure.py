import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch

from evaluation.attention_bench.accuracy import Errors, measure_errors, reference_bytes
from evaluation.attention_bench.caches import Flusher
from evaluation.attention_bench.clock import Sampler, make_sampler
from evaluation.attention_bench.contenders import PEER, Absent, Contender
from evaluation.attention_bench.floor import Floor, Rates, floor_of
from evaluation.attention_bench.inputs import Inputs, Layout, input_numbers, make_inputs
from evaluation.attention_bench.reasons import first_line
from evaluation.attention_bench.rows import Outcome, Row, Setting
from evaluation.attention_bench.samples import CACHES, ratio_to, time_interleaved
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import Task


@dataclass(frozen=True)
class Bench:
    """Contenders on one device, and what they are measured by."""

    task: Task
    device: torch.device
    dtype: torch.dtype
    layout: Layout
    setting: Setting
    contenders: Sequence[Contender | Absent]
    rates: Rates
    flusher: Flusher
    capacity_bytes: int
    """What may be taken of the device's memory."""
    limit_seconds: float
    """A contender whose floor alone takes longer, all calls of it together, is skipped on that shape."""

    def measure(self, shape: Shape) -> list[Row]:
        """Times all contenders on a shape, interleaved: warm and cold rows of each, or one that says why not."""
        rows = {each.name: self._blank(each, shape) for each in self.contenders}
        reasons = {each.name: self._why_not(each, shape) for each in self.contenders}
        samplers: dict[str, Sampler] = {}
        inputs = None if all(reasons.values()) else self._inputs(shape)
        for each in self.contenders:
            row, reason = rows[each.name], reasons[each.name]
            if isinstance(each, Absent) or inputs is None or reason:
                outcome: Outcome = "unavailable" if isinstance(each, Absent) else "skipped"
                rows[each.name] = replace(row, outcome=outcome, reason=reason or "")
                continue
            try:
                rows[each.name], samplers[each.name] = self._prepare(each, shape, inputs, row)
            except Exception as error:  # whatever a foreign kernel, or a device that is full, may raise
                rows[each.name] = replace(row, outcome="failed", reason=first_line(error))
        return self._timed(rows, samplers)

    def is_whole(self, rows: Sequence[Row]) -> bool:
        """Whether rows of a shape speak of every contender, warm and cold where it was timed, and none failed."""
        said = {(row.contender, row.cache) for row in rows if row.outcome != "failed"}
        return all(
            (each.name, "") in said or all((each.name, cache) in said for cache in CACHES)
            for each in self.contenders
        )

    def _timed(self, rows: dict[str, Row], samplers: dict[str, Sampler]) -> list[Row]:
        timed = [row for name, row in rows.items() if name not in samplers]
        for cache, cold in CACHES.items():
            samples = time_interleaved(samplers, self.setting.trials, cold)
            timed += [
                replace(
                    rows[name],
                    cache=cache,
                    q05_seconds=each.quantile(0.05),
                    q50_seconds=each.quantile(0.5),
                    q95_seconds=each.quantile(0.95),
                    samples=each.count,
                    ratio_to_sdpa=ratio_to(samples, name, PEER) if PEER in samples else None,
                )
                for name, each in samples.items()
            ]
        return timed

    def _prepare(self, each: Contender, shape: Shape, inputs: Inputs, row: Row) -> tuple[Row, Sampler]:
        """Calls it for the first time, compares what comes out, warms it up."""
        step = self.task.step(each.attend, inputs, each.family)
        start = time.perf_counter()
        outcome = step()
        self._synchronize()
        first_seconds = time.perf_counter() - start
        needed = self._input_bytes(shape) + reference_bytes(self.task, shape)
        if needed > self.capacity_bytes:
            errors = Errors(None, None, f"no reference: it needs {_mib(needed)}")
        else:
            errors = measure_errors(self.task, each.family, outcome, inputs, shape)
        del outcome
        for _ in range(self.setting.warmup):
            step()
        self._synchronize()
        sampler = make_sampler(step, self.setting.iters, self.flusher, self.device)
        row = replace(
            row,
            timer=sampler.how,
            first_seconds=first_seconds,
            error=errors.output,
            gradient_error=errors.gradients,
            against=errors.against,
        )
        return row, sampler

    def _blank(self, each: Contender | Absent, shape: Shape) -> Row:
        floor = self._floor(each, shape)
        return Row(
            **asdict(self.setting),
            **asdict(shape),
            contender=each.name,
            family=each.family.name,
            cache="",
            outcome="measured",
            floor_seconds=floor.seconds,
            floor_bound=floor.bound,
        )

    def _inputs(self, shape: Shape) -> Inputs:
        return make_inputs(shape, self.task.queries(shape), self.dtype, self.device, self.layout)

    def _why_not(self, each: Contender | Absent, shape: Shape) -> str | None:
        if isinstance(each, Absent):
            return each.reason
        calls = self.setting.warmup + len(CACHES) * self.setting.iters * self.setting.trials
        least = calls * self._floor(each, shape).seconds
        if least > self.limit_seconds:
            return f"{calls} calls take {least:,.0f} s at the floor, over --limit-seconds {self.limit_seconds:g}"
        needed = self._input_bytes(shape) + each.scratch_bytes(shape, self.task.queries(shape))
        if needed > self.capacity_bytes:
            return f"needs {_mib(needed)}; {_mib(self.capacity_bytes)} may be taken"
        return each.refuses(shape, self.dtype)

    def _input_bytes(self, shape: Shape) -> int:
        """Of inputs and results, which are of one size in training."""
        return 2 * self.dtype.itemsize * input_numbers(shape, self.task.queries(shape))

    def _floor(self, each: Contender | Absent, shape: Shape) -> Floor:
        return floor_of(self.task, each.family, shape, self.dtype.itemsize, self.rates)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _mib(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"
