from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """Who holds a parameter when the model is spread over ranks: one entry of an ownership map.

    An ownership map is a dictionary from parameter name to `Owner`; names are those of the unsharded model.
    Parallelism, checkpoints and norms consult it; the model itself does not.
    """

    track: int | None = None
    """The track the parameter belongs to; None: all tracks share it."""
    vocab_dim: int | None = None
    """The dimension that runs over the vocabulary and may be split along the track axis; None: not splittable."""


SHARED = Owner()
OwnershipMap = dict[str, Owner]
