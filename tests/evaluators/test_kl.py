"""KL per sequence: sums over tokens, and what the estimators must satisfy."""

import math

import numpy as np
import pytest
from bakeoff.evaluators.kl import KL


def score(make_context, policy, reference, exact):
    context = make_context(["x"] * len(policy), token_logps=policy, token_reference_logps=reference, token_kl=exact)
    return KL().score(context).pivot(index=["sample", "prompt_id"], columns="metric", values="value")


def test_sums_by_hand(make_context):
    """Two tokens with log-ratios log 2 and -log 4: k1 is -log 2, k3 is (1/2 - 1 + log 2) + (4 - 1 - log 4)."""
    policy, reference = [[-1.0, -1.0 - math.log(4)]], [[-1.0 - math.log(2), -1.0]]
    values = score(make_context, policy, reference, [[0.25, 0.5]]).iloc[0]
    assert values["kl"] == 0.75
    assert values["kl_k1"] == pytest.approx(-math.log(2))
    assert values["kl_k3"] == pytest.approx((1 / 2 - 1 + math.log(2)) + (4 - 1 - math.log(4)))


def test_the_same_model_is_at_distance_zero(make_context):
    """A policy that is its reference pays nothing; neither does an empty completion."""
    values = score(make_context, [[-0.5, -3.0], []], [[-0.5, -3.0], []], [[0.0, 0.0], []])
    assert (values == 0.0).all(axis=None)


def test_k3_is_never_negative(make_context):
    """exp(x) - 1 - x is at least 0 for every log-ratio, large or tiny."""
    rng = np.random.default_rng(0)
    policy = [list(-rng.exponential(scale, 30)) for scale in (1e-9, 1e-3, 1.0, 8.0)]
    reference = [list(-rng.exponential(scale, 30)) for scale in (1e-9, 1e-3, 1.0, 8.0)]
    values = score(make_context, policy, reference, [[0.0]] * 4)
    assert (values["kl_k3"] >= -1e-15).all()
    assert values["kl_k1"].min() < 0


def test_all_three_estimate_the_same_divergence(make_context):
    """Over tokens drawn from a known policy, the means of k1 and k3 are the exact KL within their error."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    exact = float(np.sum(p * np.log(p / q)))
    tokens = np.random.default_rng(0).choice(3, size=(400, 20), p=p)
    values = score(make_context, list(np.log(p)[tokens]), list(np.log(q)[tokens]), [[exact] * 20] * 400)
    assert values["kl"].mean() == pytest.approx(20 * exact)
    for metric in ("kl_k1", "kl_k3"):
        error = values[metric].std() / math.sqrt(len(values))
        assert abs(values[metric].mean() - 20 * exact) < 4 * error


def test_directions():
    """KL is a cost; its estimates are diagnostics that no verdict may rest on."""
    assert {metric.name: metric.direction for metric in KL.metrics} == {
        "kl": "lower",
        "kl_k1": "none",
        "kl_k3": "none",
    }
    assert "logprobs" in KL.needs
