"""Intervals, win rates, Holm and verdicts, against closed forms, scipy and a small simulation."""

import numpy as np
import pandas as pd
import pytest
from bakeoff.reports.statistics import (
    Components,
    Estimate,
    bounded,
    detectable_effect,
    expected_error,
    holm,
    paired_difference,
    two_way,
    variance_components,
    win_rate,
    wins,
)
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower


def test_two_way_matches_the_sums_done_by_hand():
    """On a 2 x 2 matrix the mean squares, the SE, the degrees of freedom and the interval come out as on paper."""
    # Rows [1, 3] and [4, 10]: mean 4.5; seeds 2 and 7; prompts 2.5 and 6.5; residuals ±1.
    # MS_seed = 2(2.5² + 2.5²) = 25, MS_prompt = 2(2² + 2²) = 16, MS_resid = 4 · 1 = 4, each on 1 df.
    estimate = two_way(np.array([[1.0, 3.0], [4.0, 10.0]]))
    total = 25 + 16 - 4
    df = max(total**2 / (25**2 + 16**2 + 4**2), 1)
    half = stats.t.ppf(0.975, df) * np.sqrt(total / 4)
    assert estimate.mean == 4.5
    assert estimate.se == pytest.approx(np.sqrt(total / 4))
    assert estimate.df == pytest.approx(df)
    assert (estimate.low, estimate.high) == (pytest.approx(4.5 - half), pytest.approx(4.5 + half))
    assert (estimate.n_seeds, estimate.n_prompts, estimate.flag) == (2, 2, "")


def test_error_has_a_floor_when_seeds_and_prompts_explain_nothing():
    """Where both main effects are zero, SE² is MS_resid / (K P) on (K-1)(P-1) degrees of freedom."""
    scores = np.array([[1.0, -1.0], [-1.0, 1.0]])
    estimate = two_way(scores)
    assert estimate.se == pytest.approx(np.sqrt(4.0 / 4))
    assert estimate.df == 1.0
    assert estimate.p == pytest.approx(1.0)


def test_one_seed_is_a_t_interval_over_prompts_and_says_so():
    """With one seed the interval is scipy's for the prompts, flagged as holding for this run alone."""
    scores = np.array([[0.1, 0.5, 0.2, 0.9]])
    estimate = two_way(scores)
    expected = stats.ttest_1samp(scores[0], 0.0)
    interval = expected.confidence_interval(0.95)
    assert (estimate.low, estimate.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert estimate.p == pytest.approx(expected.pvalue)
    assert estimate.flag == "conditional on this run"


def test_one_prompt_is_a_t_interval_over_seeds():
    """With one prompt the seeds are all there is to learn from."""
    estimate = two_way(np.array([[0.1], [0.4], [0.3]]))
    assert estimate.p == pytest.approx(stats.ttest_1samp([0.1, 0.4, 0.3], 0.0).pvalue)
    assert estimate.flag == "conditional on this prompt"


def test_a_single_number_has_no_interval():
    """One seed and one prompt give a mean and nothing else."""
    estimate = two_way(np.array([[0.3]]))
    assert estimate.mean == 0.3
    assert np.isnan([estimate.low, estimate.high, estimate.p, estimate.detectable]).all()


def test_constant_scores_are_certain():
    """Without any variation the interval is a point: surely different from 0, or surely not."""
    sure, nothing = two_way(np.ones((3, 4))), two_way(np.zeros((3, 4)))
    assert (sure.low, sure.high, sure.p) == (1.0, 1.0, 0.0)
    assert (nothing.low, nothing.high, nothing.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("scores", [np.zeros((0, 3)), np.zeros(3), np.array([[1.0, np.nan]])])
def test_gaps_are_refused(scores):
    """A matrix with a gap or of another shape is an error, never a guess."""
    with pytest.raises(ValueError, match="seeds, prompts"):
        two_way(scores)


def test_interval_covers_where_a_prompt_interval_does_not():
    """With seed noise, the two-way interval covers about 95 % of the time where prompts alone cover under 65 %."""
    rng = np.random.default_rng(0)
    covered = prompts_only = 0
    for _ in range(300):
        scores = rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.25, (1, 100)) + rng.normal(0, 0.33, (3, 100))
        estimate, naive = two_way(scores), two_way(scores.mean(axis=0, keepdims=True))
        covered += estimate.low <= 0 <= estimate.high
        prompts_only += naive.low <= 0 <= naive.high
    assert covered / 300 > 0.88
    assert prompts_only / 300 < 0.65


def test_interval_is_not_wasteful_without_seed_noise():
    """When seeds do not matter, coverage stays near 95 % and the width near that of the prompts' interval."""
    rng = np.random.default_rng(1)
    covered, ratios = 0, []
    for _ in range(200):
        scores = rng.normal(0, 0.25, (1, 100)) + rng.normal(0, 0.33, (3, 100))
        estimate, naive = two_way(scores), two_way(scores.mean(axis=0, keepdims=True))
        covered += estimate.low <= 0 <= estimate.high
        ratios.append((estimate.high - estimate.low) / (naive.high - naive.low))
    assert 0.91 <= covered / 200 <= 0.99
    assert np.median(ratios) < 1.15


def test_pairing_removes_what_prompts_add_to_both():
    """Two algorithms that differ by exactly 0.1 everywhere differ by 0.1 for certain, however hard the prompts vary."""
    a = np.random.default_rng(2).normal(size=(3, 20))
    estimate = paired_difference(a + 0.1, a)
    assert estimate.mean == pytest.approx(0.1)
    assert estimate.high - estimate.low < 1e-9


def test_pairing_needs_one_shape():
    """Different seeds or prompts cannot be paired."""
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(np.zeros((2, 3)), np.zeros((3, 3)))


def test_wins_count_ties_half_and_all_pairs_of_samples():
    """Samples {1, 2} against {1, 3}: of four pairs, one win, one tie, two losses."""
    assert wins(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 3.0]]])) == pytest.approx((1 + 0.5) / 4)


def test_win_rate_equals_mann_whitney():
    """For one prompt with many samples the win rate is U / (n m)."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.5, 1, 30), rng.normal(0, 1, 30)
    expected = stats.mannwhitneyu(a, b).statistic / 900
    assert wins(a[None, None], b[None, None])[0, 0] == pytest.approx(expected)


def test_win_rate_stays_between_zero_and_one_and_tests_a_half():
    """An interval of a share cannot leave [0, 1]; equal algorithms are at 0.5 with nothing to reject."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=(3, 12, 1))
    better = win_rate(wins(a + rng.normal(1.5, 0.5, a.shape), a))
    assert 0.9 < better.mean <= better.high <= 1.0
    assert better.p < 0.01
    equal = win_rate(wins(a, a))
    assert (equal.mean, equal.p) == (0.5, 1.0)


def test_holm_by_hand():
    """p = .01, .04, .03 become .03, .06, .06: the smallest times 3, the next times 2, and never falling."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holm_is_between_the_raw_p_and_bonferroni():
    """Holm never adjusts less than nothing nor more than Bonferroni, keeps the order, and stops at 1."""
    p = np.random.default_rng(5).uniform(size=9)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, 9 * p)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert adjusted.max() <= 1


def test_holm_counts_a_missing_p():
    """A comparison that could not be made stays missing and still counts in the family."""
    adjusted = holm([0.02, float("nan")])
    assert adjusted[0] == pytest.approx(0.04)
    assert np.isnan(adjusted[1])
    assert holm([]).size == 0


def test_components_are_those_of_restricted_maximum_likelihood():
    """On balanced data with all parts positive the ANOVA estimates are those of statsmodels' REML."""
    rng = np.random.default_rng(6)
    scores = rng.normal(0, 0.5, (6, 1)) + rng.normal(0, 0.8, (1, 12)) + rng.normal(0, 0.4, (6, 12))
    seeds, prompts = np.indices(scores.shape)
    data = {"y": scores.ravel(), "seed": seeds.ravel(), "prompt": prompts.ravel(), "all": np.ones(scores.size)}
    parts = {"seed": "0 + C(seed)", "prompt": "0 + C(prompt)"}
    fit = MixedLM.from_formula("y ~ 1", groups="all", vc_formula=parts, data=pd.DataFrame(data)).fit(reml=True)
    found = variance_components(scores)
    assert found.interaction == pytest.approx(fit.scale, rel=0.02)
    assert sorted((found.seed, found.prompt)) == pytest.approx(sorted(fit.vcomp), rel=0.05)
    assert np.isnan(found.noise)


def test_components_of_replicated_scores_by_hand():
    """Two seeds, two prompts, two samples: cell means 1, 3, 3, 5; samples ±1 around them are noise of variance 2."""
    means = np.array([[1.0, 3.0], [3.0, 5.0]])
    cube = np.stack([means - 1, means + 1], axis=2)
    # MS_seed = MS_prompt = 2·2·(1 + 1) = 8, MS_cell = 0, noise 2: the interaction's estimate is below 0, so 0.
    assert variance_components(cube) == (8 / 4, 8 / 4, 0.0, 2.0)


def test_components_recover_what_was_planted():
    """Averaged over many data sets the four parts are unbiased."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(200):
        cell = rng.normal(0, 0.6, (5, 1, 1)) + rng.normal(0, 0.5, (1, 20, 1)) + rng.normal(0, 0.4, (5, 20, 1))
        found.append(variance_components(cell + rng.normal(0, 0.3, (5, 20, 4))))
    assert np.mean(found, axis=0) == pytest.approx([0.36, 0.25, 0.16, 0.09], rel=0.1)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        variance_components(np.zeros((1, 5)))


def test_expected_error_is_what_the_interval_turns_out_to_have():
    """The SE that is planned from the true parts is the root mean square of the SEs that come out."""
    rng = np.random.default_rng(8)
    parts = Components(seed=0.04, prompt=0.09, interaction=0.16, noise=float("nan"))
    squares = []
    for _ in range(300):
        scores = rng.normal(0, 0.2, (6, 1)) + rng.normal(0, 0.3, (1, 40)) + rng.normal(0, 0.4, (6, 40))
        squares.append(two_way(scores).se ** 2)
    se, df = expected_error(parts, 6, 40)
    assert se == pytest.approx(np.sqrt(0.04 / 6 + 0.09 / 40 + 0.16 / 240))
    assert se == pytest.approx(np.sqrt(np.mean(squares)), rel=0.05)
    assert 5 <= df <= 6 * 40


def test_detectable_effect_is_statsmodels_up_to_the_noncentral_t():
    """For one group of 20 the effect that 80 % power needs is statsmodels' to a per cent."""
    expected = TTestPower().solve_power(nobs=20, alpha=0.05, power=0.8)
    assert detectable_effect(1 / np.sqrt(20), 19) == pytest.approx(expected, rel=0.01)


def test_holm_is_statsmodels():
    """The same adjustment as statsmodels' for a family of ten."""
    p = np.random.default_rng(9).uniform(0, 0.2, 10)
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_degrees_of_freedom_are_satterthwaites_by_hand():
    """MS 25, 16 and 4 on 1, 1 and 1 degrees of freedom: 37² / (625 + 256 + 16) is 1.526."""
    assert two_way(np.array([[1.0, 3.0], [4.0, 10.0]])).df == pytest.approx(37**2 / (625 + 256 + 16))


def test_another_level_gives_another_interval():
    """The 90 % interval lies within the 95 % one and has the same centre."""
    estimate = two_way(np.random.default_rng(10).normal(size=(4, 9)))
    low, high = estimate.interval(0.90)
    assert estimate.low < low < high < estimate.high
    assert (low + high) / 2 == pytest.approx(estimate.mean)
    assert estimate.interval(0.95) == pytest.approx((estimate.low, estimate.high))


def test_detectable_effect_has_eighty_percent_power():
    """A true effect of the detectable size is found significant four times out of five."""
    df, se = 20.0, 0.1
    effect = Estimate(0.0, se, df, 0.0, 0.0, 1.0, 5, 48).detectable
    power = stats.nct.sf(stats.t.ppf(0.975, df), df, effect / se)
    assert power == pytest.approx(0.8, abs=0.01)


def test_interval_ends_where_the_quantity_does():
    """Half of the wins of three seeds: a rate's interval is cut to [0, 1], one without bounds is left alone."""
    wild = two_way(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    assert wild.low < 0.0
    assert wild.high > 1.0
    assert bounded(wild, 0.0, 1.0).low == 0.0
    assert bounded(wild, 0.0, 1.0).high == 1.0
    assert bounded(wild, None, None) == wild
