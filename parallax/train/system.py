import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from parallax.metrics.system_files import node_file
from parallax.metrics.system_sampler import SystemSampler
from parallax.train.session import Session
from parallax.train.world import World


@dataclass(frozen=True)
class Nodes:
    """The machines of a run, as its launcher counts them."""

    names: tuple[str, ...]
    """By the rank that speaks for each, the one that the launcher numbered 0 on it."""
    own: str | None
    """The name of this rank's node, if it speaks for it; else None."""


def find_nodes(world: World) -> Nodes:
    """Collective; every rank says where it is."""
    places = world.gather((socket.gethostname(), world.ranks.local_rank))
    speakers = [rank for rank, (_, local_rank) in enumerate(places) if local_rank == 0]
    names = name_nodes([places[rank][0] for rank in speakers])
    mine = world.ranks.rank
    return Nodes(names, names[speakers.index(mine)] if mine in speakers else None)


def name_nodes(hosts: Sequence[str]) -> tuple[str, ...]:
    """A name for each node: its host's up to the first dot, numbered where several have the same.

    Containers, and nodes that are only pretended, may share one.
    """
    short = [host.partition(".")[0] for host in hosts]
    return tuple(
        f"{host}-{short[:index].count(host)}" if short.count(host) > 1 else host
        for index, host in enumerate(short)
    )


@contextmanager
def system_sampled(session: Session, nodes: Nodes) -> Iterator[None]:
    """While the block lasts, one rank of each node writes down what the node does; see `SystemSampler`."""
    interval = session.config.tracking.system_interval
    if nodes.own is None or not interval:
        yield
        return
    warn: Callable[[str], None] = session.display.message
    if not session.world.is_first:
        warn = partial(print, f"rank {session.world.ranks.rank}:", file=sys.stderr)
    # Only the first rank holds the lock; on others the fence is open.
    path = node_file(session.folder.path, nodes.own)
    with SystemSampler(path, interval, warn, session.folder.lock.check):
        yield
