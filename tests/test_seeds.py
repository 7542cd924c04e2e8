"""Seeds by purpose."""

from bakeoff.seeds import derive_seed


def test_a_seed_depends_on_every_part_and_on_nothing_else():
    """Known values hold the definition fixed: a change of it would change every result."""
    assert derive_seed(0, "rollout", 17) == derive_seed(0, "rollout", 17)
    assert len({derive_seed(0, "a", 1), derive_seed(0, "a1"), derive_seed(0, "a", "1", ""), derive_seed("0a", 1)}) == 4
    assert 0 <= derive_seed(0) < 2**31
    assert derive_seed(0, "rollout", 17) == 1459922442
