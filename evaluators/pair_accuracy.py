"""How good a reward model is on held-out pairs: one row a pair, so that every number has its interval.

Accuracy, log loss and calibration are of P(chosen > rejected) = sigmoid(logit), the Bradley-Terry model's; a loss that
does not fit that model (hinge, pointwise) is measured by it all the same, and its calibration says so. The expected
calibration error is Guo et al.'s (2017, arXiv:1706.04599), with ten bins of the confidence in the preferred side.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bakeoff.contracts import EvalContext, Evaluator, Metric

from .long import long_form

BINS = 10
"""Of the confidence, from 0.5 to 1, equally wide."""


class PairAccuracy(Evaluator):
    title = "Reward model on held-out pairs"
    needs = frozenset({"pairs"})
    metrics = (
        Metric(
            "pair_accuracy", "share of pairs", "higher",
            "1 when the chosen completion has the higher reward, 0.5 when both are equal.", 0.0, 1.0,
        ),
        Metric("pair_log_loss", "nats", "lower", "-log of the probability given to the label; log 2 for a coin.", 0.0),
        Metric("pair_confidence", "probability", "none", "Probability given to the side that is preferred.", 0.5, 1.0),
        Metric(
            "calibration_error", "probability", "lower",
            "Gap of confidence and accuracy in the pair's bin; its mean is the expected calibration error.", 0.0, 1.0,
        ),
        Metric(
            "length_correlation", "correlation", "none",
            "The pair's part of Pearson's correlation of reward with length in tokens, which is the mean over pairs.",
        ),
        Metric(
            "swap_consistency", "share of pairs", "higher",
            "1 when the same side wins in a second scoring, beside other texts.", 0.0, 1.0,
        ),
    )  # fmt: skip

    def score(self, context: EvalContext) -> pd.DataFrame:
        """Six values a pair; no correlation where rewards or lengths are all equal."""
        pairs = context.pairs
        assert pairs is not None  # a need
        logit = pairs["logit"].to_numpy(float)
        right = (np.sign(logit) + 1) / 2
        confidence = 1 / (1 + np.exp(-np.abs(logit)))
        values = {
            "pair_accuracy": right,
            "pair_log_loss": np.logaddexp(0.0, -logit),
            "pair_confidence": confidence,
            "calibration_error": calibration_gaps(confidence, right),
            "swap_consistency": np.sign(logit) == np.sign(pairs["logit_again"]),
        }
        rewards = _standardised(pairs[["chosen_reward", "rejected_reward"]].to_numpy(float))
        lengths = _standardised(pairs[["chosen_tokens", "rejected_tokens"]].to_numpy(float))
        if rewards is not None and lengths is not None:
            values["length_correlation"] = (rewards * lengths).mean(1)
        return long_form(pairs, {name: pd.Series(column) for name, column in values.items()})


def calibration_gaps(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """|mean confidence - accuracy| of each pair's bin, (N,); the mean is the expected calibration error."""
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    frame = pd.DataFrame({"bin": bins, "gap": confidence - right})
    return frame.groupby("bin")["gap"].transform("mean").abs().to_numpy()


def _standardised(values: np.ndarray) -> np.ndarray | None:
    """(N, 2) with mean 0 and standard deviation 1 over all entries; None where they are all equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else None
