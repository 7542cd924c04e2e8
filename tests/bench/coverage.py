"""How often nominal 95 % intervals hold the true value: the table of docs/statistics.md. Run: make coverage.

Scores are drawn as y[k, p] = seed[k] + prompt[p] + interaction[k, p] + noise[k, p], normal, the true mean 0, standard
deviations .25 (prompt), .15 and .30, and a seed's as the scenario says: .005 is what SFT and DPO show, .10 what PPO
does. Other methods and other seeds of the same draws stand beside the default for comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import numpy as np
from bakeoff.reports.preferences import length_controlled
from bakeoff.reports.statistics import two_way
from scipy import stats

PROMPTS = 200
SEED_SDS = (0.005, 0.02, 0.10)
SEEDS = (3, 5, 10)
DRAWS = 400


def draw(rng: np.random.Generator, seed_sd: float, seeds: int) -> np.ndarray:
    """(K, P) scores whose true mean is 0."""
    cell = np.hypot(0.15, 0.30)
    return rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, 0.25, PROMPTS) + rng.normal(0, cell, (seeds, PROMPTS))


def two_way_t(scores: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    estimate = two_way(scores)
    return estimate.low, estimate.high


def seed_t(scores: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    means = scores.mean(axis=1)
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return means.mean() - half, means.mean() + half


def percentile(seeds_too: bool, prompts_too: bool) -> Callable[[np.ndarray, np.random.Generator], tuple[float, float]]:
    """The percentile bootstrap that draws seeds, prompts or both anew, by multinomial weights."""

    def interval(scores: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
        weights = []
        for count, drawn in zip(scores.shape, (seeds_too, prompts_too), strict=True):
            even = np.full((DRAWS, count), 1 / count)
            weights.append(rng.multinomial(count, even[0], DRAWS) / count if drawn else even)
        low, high = np.quantile(((weights[0] @ scores) * weights[1]).sum(axis=1), [0.025, 0.975])
        return float(low), float(high)

    return interval


METHODS = {
    "two-way t (default)": two_way_t,
    "prompt bootstrap": percentile(False, True),
    "seed bootstrap": percentile(True, False),
    "two-way bootstrap": percentile(True, True),
    "seed t": seed_t,
}


def coverage(replicates: int, seed: int) -> dict[tuple[float, int], dict[str, float]]:
    """Share of replicates whose interval holds 0, by (seed sd, seeds) and method."""
    found = {}
    for seed_sd in SEED_SDS:
        for seeds in SEEDS:
            rng = np.random.default_rng([seed, seeds, round(1000 * seed_sd)])
            hits = dict.fromkeys(METHODS, 0)
            for _ in range(replicates):
                scores = draw(rng, seed_sd, seeds)
                for name, method in METHODS.items():
                    low, high = method(scores, rng)
                    hits[name] += low <= 0 <= high
            found[seed_sd, seeds] = {name: count / replicates for name, count in hits.items()}
    return found


def length_coverage(replicates: int, seed: int) -> dict[float, float]:
    """Share of intervals that hold the true win rate at equal length, by seed sd; 5 seeds, longer answers win more.

    Seeds move the win rate by their sd: on the log-odds scale by about four times as much.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    found = {}
    for seed_sd in SEED_SDS:
        rng = np.random.default_rng([seed, 4, round(1000 * seed_sd)])
        # The truth at equal length, over prompts and seeds: quadrature of sigmoid(0.3 + N(0, 1 + seeds)).
        spread = np.hypot(1.0, 4 * seed_sd)
        truth = float((weights / weights.sum()) @ (1 / (1 + np.exp(-(0.3 + spread * nodes)))))
        hits = 0
        for _ in range(replicates):
            difficulty, lengths = rng.normal(0, 1, PROMPTS), rng.normal(12, 20, (5, PROMPTS))
            logits = 0.3 + 0.9 * np.tanh(lengths / lengths.std()) + difficulty + rng.normal(0, 4 * seed_sd, (5, 1))
            outcomes = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
            interval = length_controlled(outcomes, lengths, difficulty=difficulty).win_rate
            hits += interval.low <= truth <= interval.high
        found[seed_sd] = hits / replicates
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = coverage(options.replicates, options.seed)
    print(f"| seed sd | seeds | {' | '.join(METHODS)} |")
    print(f"|---|---|{'---|' * len(METHODS)}")
    for (seed_sd, seeds), rates in found.items():
        print(f"| {seed_sd:g} | {seeds} | {' | '.join(f'{rate:.3f}' for rate in rates.values())} |")
    lengths = {
        f"length-controlled, seed sd {sd:g}": rate
        for sd, rate in length_coverage(options.replicates, options.seed).items()
    }
    print("", *(f"{name}: {rate:.3f}" for name, rate in lengths.items()), sep="\n")
    by_scenario = {f"seed sd {sd:g}": found[sd, 5]["two-way t (default)"] for sd in SEED_SDS} | lengths
    report = {"coverage": by_scenario, "seeds": 5, "prompts": PROMPTS, "replicates": options.replicates}
    print(json.dumps(report))
    sys.exit(0 if all(0.92 <= rate <= 0.97 for rate in by_scenario.values()) else 1)


if __name__ == "__main__":
    main()
