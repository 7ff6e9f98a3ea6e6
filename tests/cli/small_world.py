"""What the commands are tried on, and what they answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PROSE = "".join(f"Line {n} of the {n % 7}th chapter says something about {n * n}.\n" for n in range(400))
ONE_STEP_FROM_OUT = (
    "data.path=corpus",
    "train.global_batch=4",
    "train.max_steps=1",
    "train.init_from=out",
    "run.dir=out/more",
    "tracking.mlflow=false",
    "tracking.tensorboard=false",
    "train.eval_every=0",
    "runtime.num_threads=1",
)
"""A training that begins with the model folder `out`, beside its config.yaml."""

CONFIG: dict[str, Any] = {
    "seed": 3,
    "model": {
        "num_layers": 1,
        "num_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "vocab_size": 257,
        "max_seq_len": 32,
    },
    "data": {"path": "corpus"},
    "train": {
        "max_steps": 40,
        "global_batch": 4,
        "precision": "fp32",
        "log_every": 5,
        "eval_every": 20,
        "save_every": 20,
    },
    "optim": {"lr": 1e-2, "warmup_steps": 2},
    "runtime": {"num_threads": 1, "device": "cpu"},
    "tracking": {"mlflow": False, "tensorboard": False},
}
"""A run of a second; everything is looked for beside the configuration."""


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that stdout consists of."""
        [line] = self.out.splitlines()
        found = json.loads(line)
        assert isinstance(found, dict)
        return found


Parallax = Callable[..., Answer]
