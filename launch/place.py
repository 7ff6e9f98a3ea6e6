from dataclasses import dataclass

from parallax.errors import JoinError

DEFAULT_PORT = 29500


@dataclass(frozen=True)
class Place:
    """Where the processes run: so many on each of so many nodes, of which this is one."""

    nodes: int = 1
    processes_per_node: int = 1
    node_rank: int = 0
    host: str = ""
    """Host of node 0, where the ranks meet; empty: there is one node."""
    port: int = 0
    """Port there; 0: any free one, with one node."""

    @property
    def world_size(self) -> int:
        """All processes."""
        return self.nodes * self.processes_per_node


def parse_place(nodes: int, processes_per_node: int, node_rank: int, master: str | None) -> Place:
    """Checks the numbers against each other.

    Args:
        nodes: machines.
        processes_per_node: ranks on each, one a GPU.
        node_rank: this machine, from 0.
        master: HOST or HOST:PORT of node 0; None: there is one node, which takes a free port.

    Raises:
        JoinError: they make no sense together.
    """
    for name, number in (("nodes", nodes), ("processes-per-node", processes_per_node)):
        if number < 1:
            raise JoinError(f"--{name} {number}: expected 1 or more")
    if not 0 <= node_rank < nodes:
        raise JoinError(f"--node-rank {node_rank} is none of {nodes} node(s), which count from 0 to {nodes - 1}")
    if master is None:
        if nodes > 1:
            raise JoinError(
                f"{nodes} nodes meet at node 0: add --master HOST:PORT with its host and a free port, the same "
                f"on every node"
            )
        return Place(nodes, processes_per_node, node_rank)
    host, _, port = master.rpartition(":") if ":" in master else (master, "", str(DEFAULT_PORT))
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise JoinError(f"--master {master}: expected HOST:PORT, for example node0:{DEFAULT_PORT}")
    return Place(nodes, processes_per_node, node_rank, host, int(port))
