"""Bradley-Terry and length control, against statsmodels, closed forms and planted truths."""

import numpy as np
import pytest
import statsmodels.api as statsmodels
from bakeoff.reports.preferences import (
    _pull,
    bradley_terry,
    bradley_terry_ranking,
    length_controlled,
    logistic_fit,
)
from bakeoff.reports.statistics import two_way


def rng(seed=0):
    return np.random.default_rng(seed)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_two_players_are_the_log_odds():
    """Three wins of four: strengths are half of log 3 apart from 0 on either side."""
    assert bradley_terry([[0, 3], [1, 0]]) == pytest.approx([np.log(3) / 2, -np.log(3) / 2], abs=1e-5)


def test_strengths_are_statsmodels_logistic_regression():
    """Four players as a binomial regression without intercept on +1 and -1 columns gives the same differences."""
    wins = np.array([[0, 7, 9, 6], [3, 0, 6, 5.5], [1, 4, 0, 2], [4, 4.5, 8, 0]])
    rows, outcomes = [], []
    for i in range(4):
        for j in range(i + 1, 4):
            row = np.zeros(4)
            row[i], row[j] = 1, -1
            rows.append(row[1:])
            outcomes.append([wins[i, j], wins[j, i]])
    fit = statsmodels.GLM(np.array(outcomes), np.array(rows), family=statsmodels.families.Binomial()).fit()
    ours = bradley_terry(wins)
    assert ours - ours[0] == pytest.approx([0, *fit.params], abs=1e-4)


def test_an_undefeated_player_is_finite():
    """One that never lost has no finite maximum; it comes out far ahead and the others as they are."""
    strength = bradley_terry([[0, 5, 5], [0, 0, 3], [0, 1, 0]])
    assert np.isfinite(strength).all()
    assert strength[0] - strength[1] > 10
    assert strength[1] - strength[2] == pytest.approx(np.log(3), abs=0.01)


def test_ranking_recovers_the_planted_order_and_covers_it():
    """With strengths 0.8, 0, -0.8 over 150 prompts the intervals hold the truth and the ranks are certain."""
    truth = np.array([0.8, 0.0, -0.8])
    chances = sigmoid(truth[:, None] - truth[None, :])
    first = (rng(1).random((4, 150, 3, 3)) < chances).astype(float)
    outcomes = np.triu(first, 1) + np.tril(1 - np.swapaxes(first, -1, -2), -1)
    ranking = bradley_terry_ranking(outcomes, rng=rng(), draws=300)
    assert (ranking.low <= truth).all()
    assert (truth <= ranking.high).all()
    assert list(ranking.rank) == list(ranking.rank_low) == list(ranking.rank_high) == [1, 2, 3]


def test_what_was_not_asked_is_left_out():
    """NaN cells count for neither side."""
    outcomes = np.full((1, 4, 2, 2), np.nan)
    outcomes[0, :, 0, 1], outcomes[0, :, 1, 0] = [1, 1, 1, np.nan], [0, 0, 0, np.nan]
    outcomes[0, 0] = [[np.nan, 0], [1, np.nan]]
    ranking = bradley_terry_ranking(outcomes, rng=rng(), draws=20)
    assert ranking.strength[0] - ranking.strength[1] == pytest.approx(np.log(2), abs=1e-4)


def test_logistic_fit_is_statsmodels():
    """The same coefficients as a maximum-likelihood logit, ties as half a win included."""
    features = np.column_stack([np.ones(300), rng(2).normal(size=(300, 2))])
    outcomes = (rng(3).random(300) < sigmoid(features @ [0.3, 1.0, -0.5])).astype(float)
    outcomes[::10] = 0.5
    fit = statsmodels.GLM(outcomes, features, family=statsmodels.families.Binomial()).fit()
    assert logistic_fit(features, outcomes) == pytest.approx(fit.params, abs=1e-4)


def planted(bias, lengths, seed=4):
    """Outcomes (5, 400) where the log-odds of winning are 0.2 and ``bias`` a standard deviation of length."""
    logits = 0.2 + bias * np.tanh(lengths / lengths.std())
    return (rng(seed).random(lengths.shape) < sigmoid(logits)).astype(float)


def test_length_control_takes_the_advantage_of_length_away():
    """A judge that likes length makes 0.55 look like more; at equal length it is about 0.55 again."""
    lengths = rng(5).normal(25, 20, (5, 400))
    found = length_controlled(planted(1.2, lengths), lengths)
    assert found.raw > 0.68
    assert found.win_rate.value == pytest.approx(sigmoid(0.2), abs=0.06)
    assert found.win_rate.low < sigmoid(0.2) < found.win_rate.high
    assert found.slope > 0.8
    assert found.warning.startswith("length moves it by")


def test_without_length_bias_nothing_is_controlled_away():
    """A judge that does not look at length gives the raw rate, and no warning."""
    lengths = rng(6).normal(10, 20, (5, 400))
    found = length_controlled(planted(0.0, lengths), lengths)
    assert found.win_rate.value == pytest.approx(found.raw, abs=0.03)
    assert found.warning == ""


def test_lengths_that_do_not_overlap_are_said():
    """When every answer is longer than the reference's, equal length is a guess."""
    lengths = rng(7).uniform(10, 20, (2, 30))
    found = length_controlled(planted(0.5, lengths), lengths)
    assert found.warning == "one side is always longer: equal length is outside the data"


def test_equal_lengths_change_nothing():
    """Without any difference in length the controlled rate is the raw one."""
    outcomes = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.5, 0.0, 1.0]])
    found = length_controlled(outcomes, np.zeros((2, 4)))
    assert found.win_rate.value == pytest.approx(outcomes.mean(), abs=1e-4)


def test_influences_are_what_each_answer_moves():
    """Counted twice, an answer moves the rate by its influence over N + 1: worked out by fitting again."""
    lengths, hard = rng(8).normal(5, 10, (4, 60)), rng(9).normal(size=60)
    outcomes = planted(0.8, lengths)
    gap, spread = np.tanh(lengths / lengths.std()), np.broadcast_to(hard - hard.mean(), lengths.shape)
    features = np.stack([np.ones(240), gap.ravel(), spread.ravel()], axis=1)
    level = features * [1, 0, 1]

    def rate(counts):
        fit = logistic_fit(np.repeat(features, counts, axis=0), np.repeat(outcomes.ravel(), counts))
        return np.average(sigmoid(level @ fit), weights=counts), fit

    whole, fit = rate(np.ones(240, dtype=int))
    moved = sigmoid(level @ fit) - whole + _pull(features, outcomes.ravel(), fit, level)
    assert moved.mean() == pytest.approx(0, abs=1e-6)
    for answer in (0, 100, 239):
        counts = np.ones(240, dtype=int)
        counts[answer] = 2
        assert rate(counts)[0] - whole == pytest.approx(moved[answer] / 241, rel=0.1, abs=2e-5)


def test_the_interval_is_that_of_the_rate_where_length_plays_no_part():
    """With equal lengths the controlled rate is the raw one, and so is its two-way interval."""
    outcomes = (rng(10).random((5, 80)) < 0.6).astype(float)
    found, plain = length_controlled(outcomes, np.zeros((5, 80))).win_rate, two_way(outcomes)
    assert found == pytest.approx((plain.mean, plain.low, plain.high), abs=1e-5)


def test_equals_share_a_rank():
    """Two that tie on every prompt are both first, in every draw, whoever is named first; the third is third."""
    outcomes = np.full((5, 20, 3, 3), np.nan)
    outcomes[..., 0, 1] = outcomes[..., 1, 0] = 0.5
    for i in (0, 1):
        outcomes[..., i, 2] = rng().random((5, 20)) < 0.8
        outcomes[..., 2, i] = 1 - outcomes[..., i, 2]
    ranking = bradley_terry_ranking(outcomes, rng=rng(), draws=50)
    assert ranking.rank.tolist() == ranking.rank_low.tolist() == ranking.rank_high.tolist() == [1, 1, 3]
