"""KL divergence of the policy from its reference, in nats per sequence: the price of the reward.

``kl`` sums the exact divergence of the next-token distributions over the completion's tokens, EOS included. It is
unbiased and has far less variance than estimates from the sampled tokens alone (Amini, Vieira and Cotterell 2025,
arXiv:2504.10637, who call it Rao-Blackwellised). Moving away from the reference is a cost at equal reward, so
lower is better.

``kl_k1`` and ``kl_k3`` are the estimates that trainers log (Schulman 2020, http://joschu.net/blog/kl-approx.html),
for comparison with their logs. As estimates they have no better or worse direction; k1 can be negative.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bakeoff.contracts import EvalContext, Evaluator, Metric

from .long import long_form


class KL(Evaluator):
    title = "KL divergence from the start of training"
    metrics = (
        Metric("kl", "nats per sequence", "lower", "Exact KL of policy from reference over the vocabulary.", 0.0),
        Metric("kl_k1", "nats per sequence", "none", "Log-ratio of policy to reference at the sampled tokens."),
        Metric(
            "kl_k3", "nats per sequence", "none", "Sum over tokens of ratio - 1 - log(ratio), reference to policy.", 0.0
        ),
    )
    needs = frozenset({"samples", "logprobs"})

    def score(self, context: EvalContext) -> pd.DataFrame:
        """Three values a sample, each a sum over its completion tokens; 0 for an empty completion."""
        samples = context.samples
        log_ratios = [
            np.asarray(reference, dtype=float) - np.asarray(policy, dtype=float)
            for policy, reference in zip(samples["token_logps"], samples["token_reference_logps"], strict=True)
        ]
        return long_form(
            samples,
            {
                "kl": [np.sum(token_kl, dtype=float) for token_kl in samples["token_kl"]],
                "kl_k1": [-np.sum(log_ratio) for log_ratio in log_ratios],
                "kl_k3": [np.sum(np.expm1(log_ratio) - log_ratio) for log_ratio in log_ratios],
            },
        )
