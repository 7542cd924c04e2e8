"""Verdicts: each word and each reason, and the number of seeds, from numbers worked out beforehand."""

import numpy as np
import pytest
from bakeoff.reports.statistics import (
    Components,
    Estimate,
    detectable_effect,
    expected_error,
    paired_difference,
    variance_components,
)
from bakeoff.reports.verdicts import Verdict, judge, seeds_to_decide
from statsmodels.stats.weightstats import ttost_paired


def difference(mean, seeds=5, *, p=0.01, se=0.1, df=30.0):
    return Estimate(mean, se, df, mean - 0.2, mean + 0.2, p, seeds, 48)


def test_significant_is_a_win_or_a_loss_by_direction():
    """Up is a WIN, a LOSS where lower is better; p of 0.05 or none at all decides nothing."""
    assert judge(difference(0.3), 0.01).word == "WIN"
    assert judge(difference(-0.3), 0.01).word == "LOSS"
    assert judge(difference(-0.3), 0.01, higher_is_better=False).word == "WIN"
    assert judge(difference(0.3), 0.05).word == "INCONCLUSIVE"
    assert judge(difference(0.3), float("nan")).word == "INCONCLUSIVE"


def test_equivalent_needs_the_90_percent_interval_within_the_margin():
    """0.1 ± 1.697 · 0.1 is [-0.07, 0.27]: within 0.28, not within 0.26; it goes before WIN."""
    assert judge(difference(0.1), 0.3, margin=0.28).word == "EQUIVALENT"
    assert judge(difference(0.1), 0.3, margin=0.26).word == "INCONCLUSIVE"
    assert judge(difference(0.1), 0.001, margin=0.28).word == "EQUIVALENT"
    assert judge(difference(0.1), 0.001, margin=0.26).word == "WIN"


def test_equivalence_is_two_one_sided_tests():
    """The word agrees with statsmodels' paired equivalence test on one seed's worth of independent differences."""
    values = np.random.default_rng(0).normal(0.02, 0.3, 400)
    estimate = paired_difference(values[None, :], np.zeros((1, 400)))
    for margin in (0.03, 0.05, 0.08):
        p = ttost_paired(values, np.zeros(400), -margin, margin)[0]
        low, high = estimate.interval(0.90)
        assert (p < 0.05) == (-margin < low and high < margin)


def test_reasons_say_what_stands_in_the_way():
    """Each way of being inconclusive has its own words."""
    assert judge(difference(0.01, p=0.9), 0.9).reason == "the interval holds 0, and no margin was declared"
    adjusted = judge(difference(0.3, p=0.02), 0.08, margin=0.01)
    assert adjusted.reason == "not after Holm's adjustment for its family, and is not within the margin either"
    assert judge(difference(0.9), 0.001, blocked="unequal budgets") == Verdict("INCONCLUSIVE", "unequal budgets")
    single = judge(difference(0.3, seeds=1), 0.001)
    assert (single.word, single.reason[:23]) == ("INCONCLUSIVE", "conditional on this run")


def test_few_seeds_describe_and_do_not_decide():
    """Three seeds give no verdict, however small p is; the label says where it leans."""
    ahead = judge(difference(0.3, seeds=3), 0.001)
    assert (ahead.word, ahead.leaning, ahead.label) == ("INCONCLUSIVE", "ahead", "descriptive: ahead")
    assert ahead.reason == "descriptive only: 3 seeds, and a verdict needs 5"
    assert ahead.turned().label == "descriptive: behind"
    assert judge(difference(0.0, seeds=3, p=0.9), 0.9).label == "INCONCLUSIVE"
    level = judge(difference(0.0, seeds=3), 0.9, margin=1.0)
    assert level.label == "descriptive: level"


def test_turning_a_verdict_swaps_win_and_loss():
    """Seen from the other side a WIN is a LOSS, and the rest stays."""
    assert judge(difference(0.3), 0.01).turned().word == "LOSS"
    assert judge(difference(0.0), 0.9, margin=1.0).turned().word == "EQUIVALENT"


def test_seeds_to_decide_is_the_first_design_that_detects_the_effect():
    """With seed variance alone the answer is the first K whose detectable effect is below the true one."""
    parts = Components(seed=0.01, prompt=0.0, interaction=1e-9, noise=float("nan"))
    needed = seeds_to_decide(parts, 0.15, prompts=100)
    assert needed is not None
    assert detectable_effect(*expected_error(parts, needed, 100)) <= 0.15
    assert detectable_effect(*expected_error(parts, needed - 1, 100)) > 0.15
    assert seeds_to_decide(parts, 0.15, prompts=100, family=4.0) > needed


def test_seeds_alone_cannot_mend_too_few_prompts():
    """Where the prompts' variance is the limit no number of seeds is given, and the verdict says so."""
    parts = Components(seed=0.0, prompt=1.0, interaction=0.1, noise=float("nan"))
    assert seeds_to_decide(parts, 0.05, prompts=20) is None
    found = judge(difference(0.05, p=0.6), 0.6, components=parts)
    assert "it takes more prompts" in found.reason
    assert found.seeds_needed is None


def test_equivalence_can_be_what_more_seeds_show():
    """A difference of 0 is never found, and is shown to be within the margin with enough seeds."""
    parts = Components(seed=0.01, prompt=0.0, interaction=1e-9, noise=float("nan"))
    assert seeds_to_decide(parts, 0.0, prompts=100) is None
    with_margin = seeds_to_decide(parts, 0.0, prompts=100, margin=0.1)
    assert 5 < with_margin < 30


def test_seeds_to_decide_keeps_its_promise():
    """Simulated with the number of seeds that it names, about four of five experiments decide."""
    rng = np.random.default_rng(1)
    parts = Components(seed=0.01, prompt=0.02, interaction=0.05, noise=float("nan"))
    seeds = seeds_to_decide(parts, 0.12, prompts=60)
    decided = 0
    for _ in range(300):
        scores = rng.normal(0.12, 1e-12, (seeds, 60)) + rng.normal(0, 0.1, (seeds, 1))
        scores += rng.normal(0, np.sqrt(0.02), (1, 60)) + rng.normal(0, np.sqrt(0.05), (seeds, 60))
        decided += paired_difference(scores, np.zeros_like(scores)).p < 0.05
    assert decided / 300 == pytest.approx(0.8, abs=0.08)


def test_components_feed_the_advice():
    """An inconclusive pair of five noisy seeds is told how many would decide."""
    rng = np.random.default_rng(2)
    values = 0.06 + rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 0.2, (5, 50))
    found = paired_difference(values, np.zeros_like(values))
    verdict = judge(found, found.p, components=variance_components(values))
    assert verdict.word == "INCONCLUSIVE"
    assert verdict.seeds_needed is None or verdict.seeds_needed > 5
