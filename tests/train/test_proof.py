"""A run that got something else than it asked for does not begin."""

from typing import Any

import pytest
import torch
from tiny_runs import tiny_config
from torch import nn

from parallax.config.run import RunConfig
from parallax.errors import JoinError
from parallax.train.proof import check_joined, check_ranks_agree, check_sharded, comparable
from parallax.train.world import World


class Second(World):
    """Rank 1 of two, whose first rank has another configuration."""

    def __init__(self, first: RunConfig) -> None:
        super().__init__()
        self.first = first

    def on_first(self, action: Any) -> Any:
        return comparable(self.first)


def config(**changes: Any) -> RunConfig:
    names = {name.replace("__", "."): value for name, value in changes.items()}
    return tiny_config({"data.path": "corpus", "run.dir": "run", **names})


def test_ranks_with_different_engines_do_not_begin() -> None:
    check_ranks_agree(config(), Second(config()))
    with pytest.raises(
        JoinError, match=r"parallel.engine=deepspeed and rank 0 has parallel.engine=native; start all"
    ):
        check_ranks_agree(config(parallel__engine="deepspeed"), Second(config(parallel__engine="native")))


def test_nodes_may_have_their_data_at_different_paths() -> None:
    check_ranks_agree(config(data__path="/a"), Second(config(data__path="/b", runtime__device="cpu")))


def test_a_model_that_is_not_sharded_as_asked_is_refused() -> None:
    world, model = World(), nn.Linear(2, 2)
    check_sharded(model, config(parallel__engine="native", parallel__dp_shard=1), world)
    with pytest.raises(JoinError, match=r"parallel.dp_shard=2 was asked for and the model is whole on this rank"):
        check_sharded(model, config(parallel__engine="native", parallel__dp_shard=2), world)


def test_one_process_needs_no_backend() -> None:
    check_joined(World(), torch.device("cpu"))
