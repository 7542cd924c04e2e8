"""The untrained row."""

from bakeoff import registry


def test_it_changes_nothing_and_spends_nothing(make_roles, make_context, learn):
    """Same samples before and after; the meter at zero."""
    context = make_context(make_roles(noise=0.05))
    before, after = learn("base", {}, context=context)
    assert before == after
    assert context.meter.spent()["steps"] == 0
    assert not registry.load("algorithm", "base").trains


def test_a_cell_of_it_has_no_adapter(toy_cell, run_cell):
    """It is measured like any other: the KL to the reference is exactly 0."""
    import pandas as pd

    folder = run_cell(toy_cell("base"))
    scores = pd.read_parquet(folder / "scores.parquet")
    assert (scores.query("metric == 'kl'")["value"] == 0).all()
    assert not (folder / "adapter").exists()
