"""Equal by what: interpolation between evaluations, never beyond, and whether the winner changes."""

import json
import shutil

import pytest
from bakeoff.reports.analysis.equality import CURRENCIES
from bakeoff.reports.analysis.section import sections


def test_the_amount_is_the_largest_that_all_reached(results):
    """sft trains 31 s and ppo 52 s: equal seconds are 31, where ppo was 60 % through."""
    (section,) = sections(results)
    equal = section.equal_by["seconds"]
    assert equal.amount == pytest.approx(31.0)
    by_name = {standing.algorithm: standing for standing in equal.standings}
    assert by_name["sft"].note == "measured at the end"
    assert by_name["sft"].estimate.mean == pytest.approx(section.curve("sft", "gold_reward")[-1].estimate.mean)
    assert by_name["ppo"].reached == pytest.approx(31 / 52)
    assert by_name["ppo"].note == "between evaluation 1 and evaluation 2"


def test_scores_are_read_off_on_a_straight_line(results):
    """grpo spends 45 s; at 31 s it is between 0.67 and 1, and each seed's mean is on the line between its two."""
    (section,) = sections(results)
    standing = next(s for s in section.equal_by["seconds"].standings if s.algorithm == "grpo-lr3")
    left, right = section.curve("grpo-lr3", "gold_reward")[2:]
    weight = (31 - 45 * 0.67) / (45 - 45 * 0.67)
    assert standing.estimate.mean == pytest.approx((1 - weight) * left.estimate.mean + weight * right.estimate.mean)


def test_who_spends_none_of_a_currency_is_not_ranked(results):
    """sft and dpo generate nothing; base is ranked, since it spends nothing of anything."""
    (section,) = sections(results)
    equal = section.equal_by["tokens_generated"]
    assert equal.ranked == ["grpo-lr3", "ppo", "base"]
    unranked = {standing.algorithm: standing.note for standing in equal.standings if standing.rank is None}
    assert unranked == {"sft": "spends none", "dpo": "spends none"}


def test_every_two_that_are_ranked_are_compared(results):
    """Three that generate are three pairs, the better one first, with the difference of their means."""
    (section,) = sections(results)
    equal = section.equal_by["tokens_generated"]
    assert [(pair.a, pair.b) for pair in equal.pairs] == [("grpo-lr3", "ppo"), ("grpo-lr3", "base"), ("ppo", "base")]
    means = {standing.algorithm: standing.estimate.mean for standing in equal.standings if standing.rank}
    assert equal.pairs[1].difference.mean == pytest.approx(means["grpo-lr3"] - means["base"])


def test_a_winner_that_stays_is_said_to_stay(results):
    """Where all spent the same, the order is that of the end, with the difference to the second and its verdict."""
    (section,) = sections(results)
    equal = section.equal_by["steps"]
    assert (equal.winner, equal.winner_changes) == ("grpo-lr3", False)
    assert equal.sentence.startswith("Under equal steps (60) the winner stays grpo-lr3, +")
    assert equal.sentence.endswith("over dpo: descriptive: ahead.")
    assert set(section.equal_by) == set(CURRENCIES)


def test_a_winner_that_pays_with_time_can_lose(run):
    """When grpo takes a hundred times as long, dpo leads under equal seconds, and the sentence says so."""
    for seed in range(3):
        path = run.path("grpo-lr3", seed) / "ledger.json"
        ledger = json.loads(path.read_text())
        slow = [probe | {"seconds": 100 * probe["seconds"]} for probe in ledger["probes"]]
        run.edit(path, probes=slow, spent=ledger["spent"] | {"seconds": 4500.0})
    (section,) = sections(run.results())
    assert section.ranked[0] == "grpo-lr3"
    equal = section.equal_by["seconds"]
    assert (equal.winner, equal.winner_changes) == ("dpo", True)
    assert "the winner changes from grpo-lr3 to dpo" in equal.sentence
    last = next(s for s in equal.standings if s.algorithm == "grpo-lr3")
    assert last.note == "between the start and evaluation 1"


def test_without_a_start_nothing_is_extrapolated(run):
    """Without base nobody knows where a curve starts: what is first measured beyond the amount has no rank."""
    for seed in range(3):
        shutil.rmtree(run.path("base", seed))
        path = run.path("grpo-lr3", seed) / "ledger.json"
        ledger = json.loads(path.read_text())
        run.edit(path, probes=[probe | {"seconds": 100 * probe["seconds"]} for probe in ledger["probes"]])
    (section,) = sections(run.results())
    standing = next(s for s in section.equal_by["seconds"].standings if s.algorithm == "grpo-lr3")
    assert (standing.rank, standing.estimate) == (None, None)
    assert standing.note == "first measured beyond this amount"
