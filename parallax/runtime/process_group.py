import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from parallax.errors import JoinError
from parallax.runtime.collectives_log import CONTROL_GROUP, keep_recent_collectives
from parallax.runtime.ranks import Ranks

_STARTED = "parallax/started"
_PORT_TAKEN = ("EADDRINUSE", "address already in use")
JOIN_SECONDS = 300.0
"""How long ranks wait for each other at the start: nodes read the same libraries from slow disks."""
COLLECTIVE_SECONDS = 600.0
"""How long a collective may hang while every rank is alive, that is, when their programs differ."""


@dataclass(frozen=True)
class Joined:
    """This process as a member of its run."""

    ranks: Ranks
    control: dist.ProcessGroup | None
    """All ranks over gloo, on the CPU, apart from the groups that train; None: there is one process only."""


def join(
    ranks: Ranks,
    device: torch.device,
    *,
    join_seconds: float = JOIN_SECONDS,
    collective_seconds: float = COLLECTIVE_SECONDS,
) -> Joined:
    """Makes this process one of `ranks.world_size`, over the address that the launcher put into the environment.

    Tensors on the CPU travel over gloo, those on CUDA over NCCL; a process alone joins nothing. Collective:
    every rank calls it.

    Args:
        ranks: this process among the others.
        device: where it computes; a CUDA device becomes the current one.
        join_seconds: how long to wait for the others.
        collective_seconds: timeout of every group's collectives.

    Raises:
        JoinError: the others cannot be reached, did not come, or were started differently.
    """
    if ranks.world_size == 1:
        return Joined(ranks, None)
    keep_recent_collectives()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    address = _address(os.environ)
    with _explained(ranks, address, join_seconds):
        url = f"env://?rank={ranks.rank}&world_size={ranks.world_size}"
        store, _, _ = next(rendezvous(url, timeout=timedelta(seconds=join_seconds)))
        store.set_timeout(timedelta(seconds=join_seconds))
        _compare(store, ranks)
        timeout = timedelta(seconds=collective_seconds)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=timeout,
        )
        control = dist.new_group(backend="gloo", timeout=timeout, group_desc=CONTROL_GROUP)
    return Joined(ranks, control)


def leave() -> None:
    """Ends the membership: frees the groups. Not for the way out after a failure, where a group may hang."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _address(environment: Mapping[str, str]) -> str:
    host, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise JoinError(
            f"MASTER_ADDR={host!r} MASTER_PORT={port!r} name no address at which the ranks meet; start the run "
            f"with torchrun, which sets both"
        )
    return f"{host}:{port}"


def _compare(store: Store, ranks: Ranks) -> None:
    """Looks whether all were started alike: rank 0 reads what each says, the others what rank 0 says."""
    if store.add(f"{_STARTED}/count/{ranks.rank}", 1) > 1:
        raise JoinError(f"two processes are RANK={ranks.rank}; give each of them a number of its own")
    mine = {"WORLD_SIZE": ranks.world_size, "torch": torch.__version__}
    store.set(f"{_STARTED}/{ranks.rank}", json.dumps(mine))
    others = range(1, ranks.world_size) if ranks.rank == 0 else [0]
    for other, text in zip(others, store.multi_get([f"{_STARTED}/{other}" for other in others]), strict=True):
        theirs = json.loads(text)
        for key in mine:
            if mine[key] != theirs[key]:
                raise JoinError(
                    f"rank {ranks.rank} has {key}={mine[key]} and rank {other} has {key}={theirs[key]}; "
                    f"start all ranks with the same"
                )


@contextmanager
def _explained(ranks: Ranks, address: str, join_seconds: float) -> Iterator[None]:
    """Turns PyTorch's errors of several lines into one that names the address and the way out."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        first, *_ = str(error).splitlines()
        if any(mark in str(error) for mark in _PORT_TAKEN):
            raise JoinError(
                f"the port of {address} is taken on this host; choose another MASTER_PORT, or end the run that "
                f"uses it"
            ) from error
        if isinstance(error, dist.DistNetworkError) and ranks.rank > 0:
            raise JoinError(
                f"rank {ranks.rank} cannot reach rank 0 at {address} within {join_seconds:g} s; see that rank 0 "
                f"runs, that MASTER_ADDR is its host, and that no firewall is between ({first})"
            ) from error
        if isinstance(error, (dist.DistNetworkError, dist.DistStoreError)):
            raise JoinError(
                f"not all of {ranks.world_size} ranks came to {address} within {join_seconds:g} s; start the "
                f"missing ones, or start all with a smaller WORLD_SIZE ({first})"
            ) from error
        raise JoinError(
            f"the ranks met at {address} and cannot connect to each other; name the network between them with "
            f"GLOO_SOCKET_IFNAME, and NCCL_SOCKET_IFNAME on GPUs ({first})"
        ) from error
