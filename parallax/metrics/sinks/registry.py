from collections.abc import Callable

from parallax.config.sections import TrackingConfig
from parallax.metrics.sinks.group import SinkGroup
from parallax.metrics.sinks.message import one_line
from parallax.metrics.sinks.mlflow import MlflowSink
from parallax.metrics.sinks.protocol import Sink, TrackedRun
from parallax.metrics.sinks.tensorboard import TensorBoardSink

Warn = Callable[[str], None]
Opener = Callable[[TrackedRun, TrackingConfig, Warn], Sink | None]


def _open_tensorboard(run: TrackedRun, tracking: TrackingConfig, warn: Warn) -> Sink | None:
    return TensorBoardSink(run) if tracking.tensorboard else None


def _open_mlflow(run: TrackedRun, tracking: TrackingConfig, warn: Warn) -> Sink | None:
    return MlflowSink(run, tracking, warn) if tracking.mlflow else None


SINKS: dict[str, Opener] = {
    "tensorboard": _open_tensorboard,
    "mlflow": _open_mlflow,
}
"""The one place where sinks register: name -> opener, which returns None where the configuration says no."""


def open_sinks(run: TrackedRun, tracking: TrackingConfig, warn: Warn) -> SinkGroup:
    """Opens the trackers that the configuration asks for; call it on one rank only.

    Args:
        run: what the trackers are told.
        tracking: the `tracking` section.
        warn: prints one line. It may be called from a background thread.
    """
    sinks = []
    for name, opener in SINKS.items():
        try:
            sink = opener(run, tracking, warn)
        except Exception as error:
            warn(f"{name}: {one_line(error)}; the run goes on without it, its journal is complete")
            continue
        if sink is not None:
            sinks.append(sink)
    return SinkGroup(sinks, warn)
