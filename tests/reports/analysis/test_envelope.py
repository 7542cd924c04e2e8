"""What a KL budget buys: the envelope of evaluations along training, against the section's own grids."""

import pytest
from bakeoff.reports.analysis.envelope import envelopes
from bakeoff.reports.analysis.section import sections


def test_budgets_end_where_all_evaluations_are_held(results):
    """KLs go to about 9.4 nats, so the budgets are 1, 3 and 10; within 10 the best of three evaluations counts."""
    section = sections(results)[0]
    cap, found = envelopes(section)
    assert cap == 10
    assert list(found["dpo"].within) == [1, 3, 10]
    assert set(found) == {"sft", "dpo", "ppo", "grpo-lr3"}
    start = section.on_curve(section.grid("base", "gold_reward"))
    gains = [(section.on_curve(section.grid("dpo", "gold_reward", i)) - start).to_numpy().mean() for i in range(3)]
    assert found["dpo"].within[10].value == pytest.approx(max(gains))
    assert found["dpo"].within[1].value == 0
    assert found["dpo"].within[3].value == pytest.approx(gains[0])
    assert 0 < found["dpo"].hypervolume.value < max(gains)


def test_an_interval_holds_its_value_and_seeds_widen_it(results):
    """Ends on either side; the start's 0 has none."""
    for envelope in envelopes(sections(results)[0])[1].values():
        area = envelope.hypervolume
        assert area.low <= area.value <= area.high
        assert area.low < area.high
        assert envelope.evaluations == 3


def test_without_a_baseline_there_is_no_gain(run):
    """No base: nothing to measure gains from."""
    for seed in run.seeds:
        path = run.path("base", seed) / "status.json"
        run.edit(path, status="oom")
    assert envelopes(sections(run.results())[0])[1] == {}
