"""Derivation of seeds from a seed and a path of numbers and words."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *path: int | str) -> int:
    """Return a seed of 31 bits for one use of randomness, named by ``path``.

    Every server's seed holds 31 bits; hashing makes neighbouring trials' seeds unrelated.
    """
    # NumPy writes its integers in a way of its own.
    digest = hashlib.blake2b(repr((int(seed), *path)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
