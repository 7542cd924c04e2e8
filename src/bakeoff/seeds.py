"""Seeds by purpose: each stream of randomness has its own, whatever else ran before."""

import hashlib


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**31) from what it is for, e.g. ``derive_seed(0, "rollout", 17)``.

    sha256 of the parts' text: the same on every machine and Python, unlike ``hash()``.
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def in_turn(seed: int, stream: str, number: int, count: int, total: int) -> list[int]:
    """Indices of draw ``number``, ``count`` at a time from ``total``: seeded permutations of all, one after another."""
    import torch

    chosen = []
    for position in range(number * count, (number + 1) * count):
        generator = torch.Generator().manual_seed(derive_seed(seed, stream, position // total))
        chosen.append(int(torch.randperm(total, generator=generator)[position % total]))
    return chosen
