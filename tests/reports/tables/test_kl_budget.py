"""What a KL budget buys, as a table: the envelopes, the best first."""

import pandas as pd
from bakeoff.reports.analysis.envelope import envelopes
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.tables import kl_budget


def test_rows_are_the_envelopes_and_the_caption_names_the_cap(results):
    """Each algorithm's gain within each budget, with its interval; ordered by hypervolume."""
    section = sections(results)[0]
    cap, found = envelopes(section)
    table = kl_budget.table(section)
    frame = table.frame.set_index("algorithm")
    assert frame["hypervolume"].is_monotonic_decreasing
    for name, envelope in found.items():
        assert tuple(frame.loc[name, ["within_3", "within_3_low", "within_3_high"]]) == tuple(envelope.within[3])
    assert f"cap of {cap:g} nats" in table.caption


def test_without_kl_there_is_no_table(run):
    """Gains alone have no budget."""
    for path in run.folder.glob("cells/*/scores.parquet"):
        scores = pd.read_parquet(path)
        scores[scores["metric"] != "kl"].to_parquet(path)
    assert kl_budget.table(sections(run.results())[0]) is None
