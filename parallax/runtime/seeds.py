import hashlib

import torch


def derive_seed(seed: int, *parts: object) -> int:
    """A 63-bit seed that is a pure function of the run's seed and the parts, e.g. a parameter's name.

    Different parts give unrelated seeds (SHA-256), so draws do not depend on who else draws, or in which order.
    """
    text = ":".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def derived_generator(seed: int, *parts: object) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))
