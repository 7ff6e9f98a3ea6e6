from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from evaluation.study.arms import Arm, resolve
from evaluation.study.design import Design
from evaluation.study.plan import PlannedRun
from evaluation.study.status import Stand, Status, read_status
from evaluation.study.tuning import Tuned
from parallax.metrics.journal import read_journal


class StudyProgress:
    """A bar over a stage's operations with the time left, and a line for each run that ends.

    Args:
        console: where to.
        stage: what is done.
        runs: all runs of the stage, done ones too.
    """

    def __init__(self, console: Console, stage: str, runs: Sequence[PlannedRun]) -> None:
        self._console = console
        self._stage = stage
        self._runs = runs
        done = [run for run in runs if read_status(run).is_over]
        self._flops = sum(run.flops for run in done)
        self._num_done = len(done)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(stage, total=sum(run.flops for run in runs), left="?")
        self._begun_with = self._flops

    def __enter__(self) -> Self:
        if self._num_done:
            self._console.print(f"{self._stage}: {self._num_done} of {len(self._runs)} runs are there already")
        self._bar.start()
        self.update([])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, run: PlannedRun) -> None:
        """A run starts, or goes on."""
        step = read_status(run).step
        if step:
            self._bar.console.print(f"resume   {run.folder.name} after about step {step}", soft_wrap=True)

    def end(self, run: PlannedRun, status: Status) -> None:
        """A run has ended, in whatever way."""
        if status.is_over:
            self._num_done += 1
            self._flops += run.flops
        loss = f"val loss {status.val_loss:.4f}" if status.val_loss is not None else status.error or ""
        word = "done" if status.stand is Stand.DONE else status.stand
        left = f"  left about {self._left(self._flops)}" if self._num_done < len(self._runs) else ""
        self._bar.console.print(
            f"{word:<8} {self._num_done}/{len(self._runs)}  {run.folder.name}  {loss}{left}",
            highlight=False,
            soft_wrap=True,
        )

    def update(self, working: Sequence[PlannedRun]) -> None:
        """Moves the bar by what the running ones have done."""
        if self._bar.disable:
            return
        flops = self._flops + sum(run.flops * _share(run) for run in working)
        text = f"{self._stage}  {self._num_done}/{len(self._runs)} runs"
        self._bar.update(self._task, completed=flops, description=text, left=self._left(flops))

    def _left(self, flops: float) -> str:
        """Hours and minutes, at the pace since this command began."""
        task = self._bar.tasks[0]
        made, elapsed = flops - self._begun_with, task.elapsed or 0.0
        if made <= 0 or elapsed <= 0:
            return "?"
        minutes = round(elapsed * ((task.total or 0.0) - flops) / made / 60)
        return f"{minutes // 60}h{minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"


def arm_lines(design: Design, arms: Mapping[str, Arm]) -> list[str]:
    """What every arm costs beside the reference, for the terminal."""
    reference = asdict(resolve(arms, design.reference).costs)
    lines = []
    for arm in arms.values():
        costs = asdict(arm.costs)
        shares = ", ".join(f"{key} {value:,} ({value / reference[key]:.2f}x)" for key, value in costs.items())
        same = f"; the same as {', '.join(arm.also)}" if arm.also else ""
        equal = f"; {arm.match} equal to {abs(arm.deviation):.2%}" if arm.match else ""
        settings = " ".join(text.removeprefix("model.") for text in arm.overrides)
        lines += [f"arm      {arm.name}: {shares}{equal}{same}", f"         {settings}"]
    return lines


def tuning_lines(tuned: Mapping[str, Tuned]) -> list[str]:
    """The chosen rates and what they were chosen from, for the terminal."""
    lines = []
    for one in tuned.values():
        losses = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in one.losses.items())
        lines.append(f"tuned    {one.arm}: rate {one.rate:g} (final validation loss at {losses})")
    return lines + [f"warning  {one.warning}" for one in tuned.values() if one.warning]


def _share(run: PlannedRun) -> float:
    records = read_journal(run.folder / "journal.jsonl")
    return records[-1]["step"] / run.steps if records else 0.0
