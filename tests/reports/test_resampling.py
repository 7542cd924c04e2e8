"""Bootstraps and permutation tests, against scipy, full enumeration and equal seeds."""

import numpy as np
import pytest
from bakeoff.reports.resampling import permutation_test, sign_flip_test, stratified_bootstrap, two_way_bootstrap
from scipy import stats


def rng(seed=0):
    return np.random.default_rng(seed)


def test_one_stratum_is_scipys_percentile_bootstrap():
    """With one task the stratified bootstrap of a mean is the ordinary one."""
    runs = rng(1).normal(size=20)
    (found,) = stratified_bootstrap(lambda strata: strata[0].mean(), [runs], rng=rng(), draws=4000)
    expected = stats.bootstrap((runs,), np.mean, n_resamples=4000, method="percentile", rng=rng(2)).confidence_interval
    assert found.value == runs.mean()
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=0.03), pytest.approx(expected.high, abs=0.03))


def test_strata_are_drawn_within_themselves():
    """Two tasks on scales far apart: each resample holds as many runs of each as the data do."""
    low, high = np.array([0.0, 1.0]), np.array([100.0, 101.0, 102.0])
    (found,) = stratified_bootstrap(lambda strata: np.concatenate(strata).mean(), [low, high], rng=rng())
    assert 60.0 <= found.low <= found.value <= found.high <= 61.6


def test_two_way_draws_seeds_and_prompts_alike_for_both():
    """The difference of two paired matrices that differ by 0.1 everywhere is 0.1 in every resample."""
    a = rng(3).normal(size=(4, 30))
    (found,) = two_way_bootstrap(lambda x, y: (x - y).mean(), a + 0.1, a, rng=rng(), draws=200)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_two_way_has_the_error_of_both():
    """Where only seeds differ the spread of the resampled mean is that of K seeds drawn with replacement."""
    scores = np.repeat(np.array([[0.0], [1.0], [2.0], [3.0]]), 10, axis=1)
    drawn = []
    two_way_bootstrap(lambda x: drawn.append(x.mean()) or x.mean(), scores, rng=rng(), draws=4000)
    assert np.std(drawn) == pytest.approx(np.sqrt(1.25 / 4), rel=0.05)


def test_equal_seeds_give_equal_intervals():
    """The generator that is handed in is the only source of randomness."""
    scores = rng(4).normal(size=(5, 20))
    first, second = (two_way_bootstrap(np.mean, scores, rng=rng(9), draws=50) for _ in range(2))
    assert first == second
    assert first != two_way_bootstrap(np.mean, scores, rng=rng(10), draws=50)


def test_unequal_shapes_are_refused():
    """Paired arrays have the same seeds and prompts."""
    with pytest.raises(ValueError, match="same seeds and prompts"):
        two_way_bootstrap(np.mean, np.zeros((2, 3)), np.zeros((3, 3)), rng=rng())


@pytest.mark.parametrize(("seeds", "smallest"), [(3, 0.10), (4, 2 / 70), (5, 2 / 252)])
def test_smallest_p_of_a_permutation_test(seeds, smallest):
    """Two algorithms as far apart as can be: 2 of C(2K, K) splits are as extreme."""
    a, b = np.arange(seeds) + 100.0, np.arange(seeds, dtype=float)
    assert permutation_test(a, b, rng=rng()) == pytest.approx(smallest)


def test_permutation_test_equals_scipys():
    """All splits of 5 and 5 numbers, as scipy counts them; a draw of some of them comes close."""
    a, b = rng(5).normal(0.8, 1, 5), rng(6).normal(0, 1, 5)

    def gap(x, y, axis):
        return x.mean(axis=axis) - y.mean(axis=axis)

    expected = stats.permutation_test((a, b), gap, vectorized=True, n_resamples=np.inf).pvalue
    assert permutation_test(a, b, rng=rng()) == pytest.approx(expected)
    assert permutation_test(a, b, rng=rng(), permutations=120) == pytest.approx(expected, abs=0.12)


def test_sign_flips_by_hand():
    """Differences 1, 2, 3: of eight signs only all plus and all minus reach 6, so p = 2/8; six reach 2/64."""
    assert sign_flip_test(np.array([1.0, 2.0, 3.0]), rng=rng()) == 0.25
    assert sign_flip_test(np.arange(1.0, 7.0), rng=rng()) == pytest.approx(2 / 64)
    assert sign_flip_test(np.array([1.0, -1.0]), rng=rng()) == 1.0


def test_drawn_sign_flips_come_close_and_are_never_zero():
    """Where there are too many signs to go through, p is estimated, and the observed signs count in."""
    differences = rng(7).normal(0.3, 1, 14)
    exact = sign_flip_test(differences, rng=rng(), permutations=2**14)
    assert sign_flip_test(differences, rng=rng(), permutations=4000) == pytest.approx(exact, abs=0.03)
    assert sign_flip_test(np.full(30, 5.0), rng=rng(), permutations=99) == pytest.approx(0.01)
