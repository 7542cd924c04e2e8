"""How each number of a report is computed: what a reader finds behind it.

``method_of`` gives the method of a table's column, ``method_of_chart`` that of a chart; tests hold that every column
with a number and every chart has one.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..tables.table import Column


@dataclass(frozen=True)
class Method:
    """``text`` says how a number comes about; ``formula`` and ``source`` are empty where there is none to give."""

    title: str
    text: str
    formula: str = ""
    source: str = ""


METHODS: dict[str, Method] = {
    "mean": Method(
        "A metric's mean and its interval",
        "Every final sample on every held-out prompt is scored. Scores are averaged over the samples of a prompt, "
        "then over prompts and seeds. Seeds and prompts are both samples from what a claim is about, so both add to "
        "the error: the 95% interval is a two-way random-effects t interval with Satterthwaite's degrees of freedom, "
        "cut where the metric's range ends. With one seed it is an interval over prompts, conditional on this run.",
        "SE² = (MS_seed + MS_prompt − MS_resid) / (K·P),  at least MS_resid / (K·P)",
        "Satterthwaite, Biometrics Bulletin 2 (1946); Searle, Casella & McCulloch, Variance Components (1992), ch. 4",
    ),
    "gain": Method(
        "A gain over the baseline, or a difference of two algorithms",
        "The mean of paired differences: the same seed, the same prompt, one algorithm minus the other. Pairing "
        "removes what a prompt's difficulty adds to both. The interval is the two-way one, on the differences.",
        "d[k,p] = a[k,p] − b[k,p];  mean over k and p",
    ),
    "verdict": Method(
        "Verdicts",
        "WIN or LOSS: the Holm-adjusted p value of the paired difference is below 0.05; under an equal amount, and on "
        "other metrics than the primary one, the plain p value. EQUIVALENT: the 90% interval lies within the "
        "margin that was declared before training. INCONCLUSIVE: neither, which is not 'equal'. "
        "Fewer than five seeds describe and do not decide, since by permutation three against three cannot reach p < "
        "0.10.",
        "",
        "Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15 (1987) for equivalence",
    ),
    "p": Method(
        "Holm-adjusted p values",
        "Two-sided t test of a paired difference against 0, with the two-way standard error, adjusted over its "
        "family by Holm's step-down rule. The gains over the baseline are one family, the pairs of trained "
        "algorithms another. Under an equal amount, and on other metrics than the primary one, nothing is adjusted.",
        "adjusted(i) = max over j ≤ i of min(1, (m − j + 1)·p(j))",
        "Holm, Scandinavian Journal of Statistics 6 (1979)",
    ),
    "sign-flip": Method(
        "p values by sign flips",
        "How often the mean paired difference of seeds is as far from 0 when each seed's sign is flipped, over all. "
        "It assumes no distribution; with five seeds it cannot go below 0.0625. Not adjusted; no verdict hangs on it.",
    ),
    "bradley-terry": Method(
        "Bradley–Terry strengths",
        "Maximum likelihood from how often each algorithm beats each other one, a tie half a win to both. Intervals of "
        "strengths and ranks draw seeds and prompts anew and fit again.",
        "P(i beats j) = 1 / (1 + exp(s_j − s_i)),  mean s = 0",
        "Bradley & Terry, Biometrika 39 (1952); Chiang et al. (arXiv:2403.04132)",
    ),
    "win-rate": Method(
        "Win rates",
        "In the leaderboard: the judge compares a sample with the starting policy's sample for the same prompt, in "
        "both orders; a disagreement is a tie. Between algorithms: which has the higher primary metric on the same "
        "prompt and seed. A tie is half a win. The interval is the two-way one, cut to [0, 1].",
        "win rate = P(win) + P(tie) / 2",
        "Zheng et al. (arXiv:2306.05685), section 3.4, for both orders",
    ),
    "length-controlled": Method(
        "Win rate at equal length",
        "A logistic regression of winning on the difference in length and on how hard a prompt is, read off where both "
        "answers are equally long. Its interval is the two-way one of how far each answer moves the rate, through the "
        "fit too, so that the error of the fit is in it.",
        "logit P(win) = a + b·tanh(Δlength / sd) + c·difficulty,  at Δlength = 0",
        "Dubois et al. (arXiv:2404.04475), section 3, without its regularisation",
    ),
    "kl": Method(
        "KL from where training started",
        "Exact over the whole vocabulary, token by token, summed over the completion with its EOS, on samples drawn at "
        "temperature 1; one evaluator for every algorithm. What a trainer logs as KL is not used.",
        "KL = E over y of Σ_t Σ_v π(v|y<t) · (log π(v|y<t) − log π₀(v|y<t)),  nats a sequence",
        "Amini, Vieira & Cotterell (arXiv:2504.10637)",
    ),
    "frontier": Method(
        "KL efficiency, and what a policy is worth in best-of-n",
        "A pool of samples of the reference on the held-out prompts is tilted by exp(reward / β): that gives the "
        "highest mean reward at each KL, as far as log N − 2 nats. KL efficiency is the gain as a share of the "
        "largest gain that the same KL can buy; its interval is a two-way bootstrap, and '≤' says that the KL lies "
        "beyond the frontier. 'Worth best of' is the n whose best of n reference samples has the same mean reward, "
        "every subset counted.",
        "η = (R(π) − R(π₀)) / (R*(KL(π)) − R(π₀));  KL of best-of-n ≤ log n − (n − 1)/n",
        "Rafailov et al. (arXiv:2305.18290), eq. 4; Beirami et al. (arXiv:2401.01879); Nakano et al. "
        "(arXiv:2112.09332)",
    ),
    "kl-budget": Method(
        "What a KL budget buys",
        "The largest mean gain over the baseline among an algorithm's evaluations along training whose mean KL is "
        "within the budget; the start's, 0, where none is. Averaged over all budgets from 0 to the cap that is the "
        "hypervolume of KL and gain divided by the cap. Intervals draw seeds and prompts anew (percentile bootstrap, "
        "too narrow below five seeds); a largest of noisy means is a little too high.",
        "∫ from 0 to cap of max{gain(e) : KL(e) ≤ k} dk / cap",
        "Zitzler & Thiele, IEEE Trans. Evolutionary Computation 3 (1999)",
    ),
    "over-optimisation": Method(
        "Over-optimisation",
        "Training reward and gold reward at every evaluation along training, means over seeds on the prompts of the "
        "learning curves. 'Lost since' is the best gold reward less the last. The fit is by least squares over the "
        "evaluations after the start.",
        "gold gain = d·(a − b·log d),  d = √KL;  it turns at d = exp(a/b − 1)",
        "Gao et al. (arXiv:2210.10760), eq. 1",
    ),
    "equal": Method(
        "Equal by what?",
        "The amount is the largest that every seed of every contender reached. An algorithm that was between two of "
        "its evaluations along training when it had spent it counts as a mixture of the two, so a mean is read off on "
        "a straight line, seed by seed and prompt by prompt, and a win rate is the mixture's; nothing is extrapolated. "
        "An algorithm that spends none of a currency is listed without a score. The page's switch puts these scores "
        "in the place of those at the end. Exploratory: p values are not adjusted.",
        "score = (1 − w) · score before + w · score after,  w = (amount − spent before) / (spent after − spent before)",
    ),
    "seeds-needed": Method(
        "Seeds that would decide",
        "The fewest seeds that would give a verdict with 80% power, if the estimated difference and variances were "
        "the true ones. An effect that was seen is often larger than the true one, so the number is optimistic.",
        "SE² of K seeds × P prompts = σ²_seed/K + σ²_prompt/P + σ²_rest/(K·P)",
    ),
    "spent": Method(
        "What was spent",
        "Hooks on the shared base model count tokens and FLOPs of every pass, by role; no algorithm is asked. "
        "Evaluation is off the clock. Means over the seeds that ended well.",
    ),
    "shared": Method(
        "Shared stages",
        "Demonstrations, preference pairs, a reward model or a warm start are made once and used by several cells. "
        "They are counted twice: in full, as if the algorithm paid alone, and split evenly among the cells that used "
        "them.",
    ),
    "memory": Method("Peak memory", "The most that the process held while it trained; the worst seed."),
    "budget": Method(
        "Share of the budget, and overshoot",
        "Training stops at the first limit that is reached; a step that has begun is finished. So the overshoot is "
        "at most one step's share. The worst seed is shown.",
    ),
    "parameters": Method(
        "Trainable parameters",
        "LoRA weights of the policy, equal for all; a critic's or another head's are counted apart.",
    ),
    "detectable": Method(
        "The smallest difference that could have been seen",
        "With this standard error and 80% power. A difference below it may be there and still be INCONCLUSIVE.",
        "(t_0.975 + t_0.80) · SE",
    ),
    "judge": Method(
        "What a judge is audited for",
        "Every pair of algorithms is asked for each prompt and seed, in both orders. 'Same in both orders' is the "
        "share without a flip; 'for the first' the log-odds of the text that was read first; 'as gold' the agreement "
        "with the gold reward where both decide. Canaries are questions whose answer is known: identical texts, an "
        "empty answer, a padded copy, a text that tries to talk to the judge. None may win; a judge that fails "
        "decides nothing.",
    ),
    "robustness": Method(
        "Other looks at the same scores",
        "Each pair of algorithms again by another choice that one could have made: another mean, one seed less, "
        "another metric, other prompts, an earlier evaluation. Intervals are not adjusted; what was declared decides.",
        "",
        "Simonsohn, Simmons & Nelson, Nature Human Behaviour 4 (2020)",
    ),
    "variance": Method(
        "Where the error comes from",
        "The variance of scores is split into seeds, prompts, their interaction and, where a prompt has several "
        "samples, sampling, by the mean squares of a two-way random-effects analysis. Each part is divided by how "
        "many of it a mean is over.",
        "SE² = σ²_seed/K + σ²_prompt/P + σ²_rest/(K·P)",
        "Searle, Casella & McCulloch, Variance Components (1992), ch. 4",
    ),
    "calibration": Method(
        "Confidence of reward models",
        "Held-out pairs in ten bins of the probability that the reward model gives to the side it prefers; in each, "
        "how often that side is the better one.",
        "",
        "Guo et al. (arXiv:1706.04599), section 2",
    ),
    "across": Method(
        "Across tasks",
        "The mean score of a run is the unit. Scores of different tasks are put on one scale, on which 0 is the "
        "start's mean reward and 1 that of the best of all samples in its pool. Intervals draw runs anew within each "
        "task.",
        "P(improves) = mean over tasks of P(a run of the algorithm > a run of the start)",
        "Agarwal et al. (arXiv:2108.13264)",
    ),
    "logged": Method(
        "What trainers log",
        "As the algorithm's own trainer logs it, the mean over the last tenth of training and over seeds. Trainers "
        "define it in their own ways: a sign of health, not a comparison.",
    ),
    "count": Method("Counts", "Counted, with no estimate in between."),
    "reference": Method(
        "Task references",
        "What a policy that needs no learning scores on the same test rows, by the task's gold reward.",
    ),
}  # fmt: skip

COLUMNS = {
    "primary": "mean", "delta": "gain", "difference": "gain", "verdict": "verdict", "word": "verdict", "p": "p",
    "p_holm": "p", "win_rate": "win-rate", "win_rate_lc": "length-controlled", "kl": "kl", "metric_kl": "kl",
    "metric_win_rate": "win-rate", "p_sign_flip": "sign-flip", "strength": "bradley-terry",
    "ranking.rank": "bradley-terry",
    "kl_token": "kl", "metric_kl_k1": "mean", "efficiency": "frontier", "worth": "frontier", "length_ratio": "mean",
    "hypervolume": "kl-budget", "evaluations": "count",
    "reached": "equal", "seeds_needed": "seeds-needed", "distinct_2": "mean", "unique": "mean",
    "truncated": "mean", "cost": "count", "shown": "count", "tried": "count", "retired": "count",
    "retired_seconds": "spent",
    **dict.fromkeys(("proxy", "gold", "peak_gold", "peak_kl", "drop", "a", "b", "kl_at_fitted_peak", "r_squared"),
                    "over-optimisation"),
    "length_tokens": "mean", "ended_eos": "mean", "detectable": "detectable", "peak_bytes": "memory",
    "spent": "budget", "overshoot": "budget", "score": "reference", "wall_s": "spent", "seconds": "spent",
    "consistency": "judge", "first_log_odds": "judge", "agreement": "judge", "longer": "judge", "gold_longer": "judge",
    "wins": "win-rate", "ties": "win-rate", "losses": "win-rate", "invalid": "judge", "comparisons": "judge",
    "flops": "spent", "steps": "spent", "prompts": "spent", "slices.prompts": "count", "controls.kl": "frontier",
    **dict.fromkeys(("grad_norm", "grad_norm_policy", "clip_fraction", "entropy", "approx_kl"), "logged"),
    **dict.fromkeys(("improvement", "iqm", "gap"), "across"),
    "runs.seed": "",
}  # fmt: skip
IN_WORDS = {
    "leaderboard.seeds": "count", "equal.each": "equal", "equal.order": "equal", "equal.finding": "equal",
    "leaderboard.note": "equal",
    "judges.canaries": "judge",
}  # fmt: skip
"""Columns of text that tell numbers."""
CHARTS = {
    "effects": "gain", "versus": "win-rate", "wins": "win-rate", "seeds": "mean",
    "frontier": "frontier", "kl-profile": "kl", "curve": "mean", "cost": "spent", "gains": "gain",
    "distribution": "mean", "over-optimisation": "over-optimisation", "proxy": "over-optimisation", "length": "mean",
    "lengths": "mean", "win-length": "length-controlled", "best-of-n": "frontier", "reliability": "calibration",
    "judge": "judge",
    "variance": "variance", "power": "detectable", "robustness": "robustness", "across": "across",
}  # fmt: skip
PREFIXES = {
    "metric_": "mean", "within_": "kl-budget", "against ": "verdict",
    "spent_": "spent", "shared_": "shared", "amortised_": "shared",
    "alone_": "shared", "split_": "shared", "users": "count",
    "trainable_": "parameters", "tokens_": "spent", "seed": "count", "flops_": "shared", "seconds_": "shared",
}  # fmt: skip


def method_of(column: Column, table: str) -> str:
    """The key in ``METHODS`` of a ``table``'s column; empty for one that tells no number and no verdict."""
    own = f"{table}.{column.key}"
    if column.is_text and column.kind != "verdict":
        return IN_WORDS.get(own, "")
    prefixed = (method for prefix, method in PREFIXES.items() if column.key.startswith(prefix))
    return COLUMNS.get(own, COLUMNS.get(column.key, next(prefixed, "")))


def method_of_chart(name: str) -> str:
    """The key in ``METHODS`` of a chart, by its name without that of its section."""
    return CHARTS.get(name) or CHARTS[name.partition("-")[0]]
