from parallax.config.layout import Layout
from parallax.parallel.mesh import Axis, rank_grid

GROUPS = {
    "track": (Axis.TRACK,),
    "dp_shard": (Axis.DP_SHARD,),
    "dp_replicate": (Axis.DP_REPLICATE,),
    "dp": (Axis.DP_REPLICATE, Axis.DP_SHARD),
    "model": (Axis.DP_SHARD, Axis.TRACK),
}
"""Groups of ranks that talk, by the axes along which their members differ."""


def links_leaving_node(layout: Layout, name: str, rank: int, ranks_per_node: int) -> int:
    """How many ring links of the groups along some axes leave the node of a rank.

    On a ring, each rank sends to the next of its group in the order of ranks, and the last to the first. Bytes
    that one rank sends times these links are the bytes that leave its node.

    Args:
        layout: of the ranks.
        name: one of `GROUPS`.
        rank: any rank of the node.
        ranks_per_node: neighbouring ranks on one node.
    """
    along = [list(Axis).index(axis) for axis in GROUPS[name]]
    groups = rank_grid(layout).movedim(along, list(range(-len(along), 0))).flatten(-len(along))
    ordered = groups.reshape(-1, groups.shape[-1]).sort(1).values
    here, there = ordered // ranks_per_node, ordered.roll(-1, 1) // ranks_per_node
    return int(((here == rank // ranks_per_node) & (there != here)).sum())
