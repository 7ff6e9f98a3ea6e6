from dataclasses import dataclass, field
from typing import Any

from parallax.checkpoint.sharded_store import ShardedStore
from parallax.config.load import dump_config
from parallax.config.run import RunConfig
from parallax.metrics.journal import Journal, Record, read_journal
from parallax.metrics.peak import Peak
from parallax.metrics.sinks.group import SinkGroup
from parallax.metrics.throughput import ThroughputMeter
from parallax.parallel.engine import Engine
from parallax.train.display import Display
from parallax.train.guard import FiniteGuard, non_finite
from parallax.train.profiler import StepProfiler
from parallax.train.progress import Progress
from parallax.train.run_folder import RunFolder
from parallax.train.sources import Sources
from parallax.train.world import World

_LOWEST_LOSS_SCALE = 2.0**-10
"""Sound training ends above 1; below this, gradients are NaN whatever the scale."""


@dataclass
class Session:
    """Everything a run in progress holds; made, new or resumed, by `open_session`."""

    config: RunConfig
    folder: RunFolder
    sources: Sources
    engine: Engine
    store: ShardedStore
    journal: Journal
    meter: ThroughputMeter
    guard: FiniteGuard
    profiler: StepProfiler
    peak: Peak
    progress: Progress
    total_steps: int
    flops_per_token: int
    display: Display
    world: World = field(default_factory=World)
    sinks: SinkGroup = field(default_factory=lambda: SinkGroup([], warn=print))

    @property
    def validation_name(self) -> str:
        """Names the validation windows, so that losses are compared on the same text only."""
        return f"{self.sources.validation_fingerprint}/{self.config.train.eval_samples}"

    @property
    def separating_eos_id(self) -> int | None:
        """The token that parts documents where `data.document_mask` keeps them from seeing each other."""
        return self.sources.tokenizer.eos_id if self.config.data.document_mask else None

    @property
    def checks_every_step(self) -> bool:
        """On the CPU looking at a value costs nothing, so a NaN ends the run at once."""
        return self.engine.device.type == "cpu"

    def check_finite(self) -> None:
        """Raises if training has gone wrong so far.

        Raises:
            NonFiniteError: a watched value was not finite, or fp16's loss scale fell so low that every step is
                skipped.
        """
        self.guard.check(self.last_checkpoint)
        if self.engine.scales_loss and self.engine.loss_scale < _LOWEST_LOSS_SCALE:
            raise non_finite(self.progress.step, self.last_checkpoint())

    def publish(self, record: dict[str, Any]) -> None:
        """Writes a record to the journal, and from there to the sinks and the screen; the first rank's only."""
        if not self.world.is_first:
            return
        written = self.journal.append(record)
        self.sinks.log(written)
        if "sample" in written:
            self.sinks.text("sample", written["step"], written["sample"])
        self.display.step(written)

    def save(self, *, best: bool = False) -> None:
        """Saves a checkpoint of the step just done, if every step so far and every weight is finite.

        Several ranks go on training once a copy is made; the next save, or `finish_saving`, waits for the files.

        Args:
            best: also make it the one with the lowest validation loss.

        Raises:
            NonFiniteError: nothing was written.
        """
        with self.meter.paused():
            self.guard.watch_weights(self.progress.step, self.engine.local_weights())
            self.check_finite()
            if self.world.any(self.guard.is_bad):
                raise non_finite(self.progress.step, self.last_checkpoint())
            self._save(self.progress.best_val_loss if best else None)

    def records_here(self) -> list[Record]:
        """The journal's lines of the step just done, which say what was measured at it."""
        return [r for r in read_journal(self.folder.journal) if r["step"] == self.progress.step]

    def last_checkpoint(self) -> str | None:
        """The newest checkpoint's path, for a message; None before the first."""
        steps = self.store.steps()
        return str(self.store.path_of(steps[-1])) if steps else None

    def finish_saving(self) -> None:
        """Waits until what was saved last is in place. Raises what it failed with."""
        with self.meter.paused():
            self.store.finish()

    def _save(self, best_val_loss: float | None) -> None:
        engine = self.engine
        moments, optimizer_meta = engine.optimizer_pieces()
        start = self.store.save if self.store.group is None else self.store.start_save
        start(
            self.progress.step,
            pieces=engine.weight_pieces(),
            optimizer_pieces=moments,
            state={
                "progress": self.progress.state_dict(),
                "loader": self.sources.loader.state_dict(),
                "meter": self.meter.state_dict(),
                "engine": dict(engine.extra_state()),
                "optimizer": dict(optimizer_meta),
                "corpus": self.sources.fingerprint,
            },
            texts={"config.yaml": dump_config(self.config), "tokenizer.json": self.sources.tokenizer.to_json()},
            best_val_loss=best_val_loss,
        )


def count_steps(config: RunConfig, samples_per_epoch: int) -> int:
    """Optimizer steps of the run; epochs are rounded up to whole steps."""
    if config.train.max_steps is not None:
        return config.train.max_steps
    epochs = config.train.max_epochs or 0.0
    return -int(-epochs * samples_per_epoch // config.train.global_batch)
