from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Contender:
    """Processes that train the same batch in their own way."""

    name: str
    ranks: int = 1
    threads: int = 1
    """Of each process."""
    track: int = 1
    dp_shard: int = 1
    track_across: bool = False
    shared: Literal["auto", "vocab_split", "copy_reduce"] = "auto"
    overlap: bool = False
    tensor: bool = False
    """Llama's blocks, split by torch's own tensor parallelism, instead of ours."""


BASE = Contender("1 process x 1 thread")
TWO_THREADS = Contender("1 process x 2 threads", threads=2)
SPLIT = Contender("tracks, vocab_split", ranks=2, track=2, shared="vocab_split")
OVERLAP = Contender("tracks, overlap", ranks=2, track=2, shared="vocab_split", overlap=True)
COPIED = Contender("tracks, copy_reduce", ranks=2, track=2, shared="copy_reduce")
DDP = Contender("DDP", ranks=2)
FSDP2 = Contender("FSDP2", ranks=2, dp_shard=2)
TENSOR = Contender("tensor parallel", ranks=2, tensor=True)

GROUPS = ((TWO_THREADS, SPLIT, OVERLAP, COPIED), (DDP, FSDP2, TENSOR))
"""Who is timed in turn, each group with the base, which is what keeps the memory of a laptop from running out."""
