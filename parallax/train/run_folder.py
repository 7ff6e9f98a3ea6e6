import json
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from os import getpid
from pathlib import Path
from typing import Any, Literal

from parallax.config.flatten import flatten
from parallax.config.load import check_config, dump_config
from parallax.config.run import RunConfig
from parallax.config.yaml_strict import parse_yaml
from parallax.errors import RunError
from parallax.metrics.journal import Journal
from parallax.runtime.attempt import read_attempt, read_job_facts
from parallax.runtime.files import remove_leftovers, write_text_atomic
from parallax.runtime.lock import RunLock

RunState = Literal["running", "done", "stopped", "lost", "failed"]
"""How a run stands: it runs, or died without a word; reached its end; was asked to stop and has saved; lost a
rank; met an error of its own. After `running`, `stopped` and `lost` the same command goes on."""

_MAY_CHANGE = (
    "run.",
    "data.path",
    "data.sources",
    "data.anchor.path",
    "data.val_path",
    "data.tokenizer",
    "data.val_fraction",
    "train.max_steps",
    "train.max_epochs",
    "train.micro_batch",
    "train.auto_batch",
    "train.compile",
    "train.activation_checkpointing",
    "train.log_every",
    "train.eval_every",
    "train.eval_samples",
    "train.save_every",
    "train.keep_last",
    "train.save_best",
    "train.profile",
    "train.goal",
    "loss.chunk_tokens",
    "sample.",
    "runtime.",
    "tracking.",
    "parallel.",
    "deepspeed.",
)
"""Keys that a run may be continued under with another value; the data are compared by fingerprint instead."""


class RunFolder:
    """The folder of one run: resolved configuration, journal, events, checkpoints.

    | file | content |
    |---|---|
    | config.yaml | the resolved configuration |
    | journal.jsonl | one line per logged step: the truth that trackers are fed from |
    | events.jsonl | one line per start, resumption and end, with host, process, job and changed settings |
    | state | how the run stands, in a word, and which attempt of which Slurm job said so (`-`: none) |
    | checkpoints/ | step-…, best.json |
    | curve.png | the loss curve when the run last ended |
    | tags.json | code, data, hardware and layout of the last start, for trackers that come later |
    | system/NODE.jsonl | what each node sampled of itself, a file a node |
    | mlflow_run.json | the MLflow run that all restarts go on with |
    | tensorboard/, profile/ | event files; traces, on request |

    Writing needs `lock`, and writes nothing once that is lost to another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = RunLock(path)
        self.checkpoints = path / "checkpoints"
        self.config = path / "config.yaml"
        self.journal = path / "journal.jsonl"
        self.state = path / "state"
        self._events = path / "events.jsonl"
        self._tags = path / "tags.json"
        self._stating = threading.Lock()
        self._is_final = False

    def saved_config(self) -> RunConfig | None:
        """The configuration of the run that lives here; None: there is none, or it failed before its first step.

        Raises:
            ConfigError: config.yaml is not a configuration.
            RunError: the folder holds files that no run wrote.
        """
        if self.config.exists():
            text = self.config.read_text(encoding="utf-8")
            saved = check_config(parse_yaml(text, source=str(self.config)), source=str(self.config))
            if self._has_begun():
                return saved
            if text != dump_config(saved):
                raise RunError(f"{self.path} holds a config.yaml that no run wrote; choose another run.dir")
            return None
        foreign = [p.name for p in self.path.glob("*") if not p.name.startswith(".")] if self.path.exists() else []
        if foreign:
            raise RunError(
                f"{self.path} is not a run folder: it holds {foreign[0]!r} and no config.yaml; "
                f"choose an empty or new run.dir"
            )
        return None

    def existing_config(self, hint: str = "; expected a run folder, with a config.yaml") -> RunConfig:
        """The configuration of a run that must be there, for who looks at it and does not train it.

        Raises:
            ConfigError: config.yaml is not a configuration.
            RunError: no run has begun here; the message ends with the hint.
        """
        config = self.saved_config() if self.config.exists() else None
        if config is None:
            raise RunError(f"{self.path}: no run lives here{hint}")
        return config

    def read_state(self) -> str | None:
        """How the run says that it stands, one of `RunState`; None: it has not said."""
        try:
            return self.state.read_text(encoding="utf-8").split()[0]
        except (OSError, IndexError):
            return None

    def _has_begun(self) -> bool:
        """Whether there is something that another configuration could not go on from."""
        return self.checkpoints.exists() or (self.journal.exists() and self.journal.stat().st_size > 0)

    def settle(self, config: RunConfig) -> dict[str, tuple[Any, Any]]:
        """Checks that `config` may go on with the run that lives here, or makes it a new run's; under the lock.

        What changed is not written yet: that is for when the run is open, since it may still be refused.

        Returns:
            Dotted key -> (old, new) of what changed against the run's own configuration.

        Raises:
            RunError: a setting differs that a run keeps for life.
        """
        saved = self.saved_config()
        changed = _differences(saved, config) if saved else {}
        fixed = {key: values for key, values in changed.items() if not key.startswith(_MAY_CHANGE)}
        if fixed:
            key, (old, new) = next(iter(fixed.items()))
            more = f" (and {len(fixed) - 1} more)" if len(fixed) > 1 else ""
            raise RunError(
                f"{self.path} holds a run with {key}={old}, not {new}{more}; continue it with its own value, "
                f"or choose another run.dir"
            )
        remove_leftovers(self.path)
        if saved is None:
            self.save_config(config)
        return changed

    def save_config(self, config: RunConfig) -> None:
        """Makes `config` the one that the next start is compared with."""
        self.lock.check()
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.config, dump_config(config))

    def note_tags(self, tags: Mapping[str, str]) -> None:
        """Keeps what trackers are told of this start, for one that is away until the run has ended."""
        self.lock.check()
        write_text_atomic(self._tags, json.dumps(dict(tags), indent=2) + "\n")

    def read_tags(self) -> dict[str, str]:
        """Of the last start; empty for a run that kept none.

        Raises:
            RunError: the file is damaged.
        """
        if not self._tags.exists():
            return {}
        try:
            tags = json.loads(self._tags.read_text(encoding="utf-8"))
        except ValueError:
            tags = None
        if not isinstance(tags, dict):
            raise RunError(
                f"{self._tags}: expected a JSON object; delete it, and the run is sent without its tags"
            )
        return {str(key): str(value) for key, value in tags.items()}

    def has_events(self) -> bool:
        """Whether a process has worked here before."""
        return self._events.exists()

    def note_event(self, kind: str, step: int, **details: Any) -> None:
        """Appends a line to events.jsonl."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        with closing(Journal(self._events, self.lock.check)) as events:
            events.append(
                {
                    "step": step,
                    "event": kind,
                    "time": now,
                    "host": socket.gethostname(),
                    "pid": getpid(),
                    **({"slurm": facts} if (facts := read_job_facts()) else {}),
                    **details,
                }
            )

    def note_state(self, state: RunState, *, final: bool = False) -> None:
        """Says how the run stands, for the batch script that outlives it.

        Args:
            state: a word.
            final: what this process says afterwards changes nothing: an error may be the effect of a lost rank.

        Raises:
            FencedError: the run belongs to another process by now.
        """
        with self._stating:  # a lost rank is noted by the watchdog's thread
            if self._is_final:
                return
            self.lock.check()
            write_text_atomic(self.state, f"{state} {read_attempt() or '-'}\n")
            self._is_final = final


def _differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    before, after = flatten(old.resolved()), flatten(new.resolved())
    keys = sorted(before.keys() | after.keys())
    return {k: (before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)}
