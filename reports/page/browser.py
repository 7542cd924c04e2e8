"""The data behind the side-by-side completions: few prompts, well chosen, cut to a size that a page can hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.section import Section
from ..files import clip, visible

PROMPTS = 64
"""Prompts embedded for a page: each algorithm's extremes first, then random ones."""
TEXT_LIMIT = 2_000
"""Characters shown of one text."""
BYTES_LIMIT = 1_000_000
"""Of JSON, all sections together; beyond it one seed is kept instead of all, then prompts are halved until it fits."""
SHOWN = ("gold_reward", "train_reward", "win_rate", "kl", "length_tokens")
SEED = 0
"""Of the generator that draws the random prompts."""


def completions(sections: tuple[Section, ...]) -> list[dict[str, Any]]:
    """One entry a section: {algorithms, baseline, primary, higher, prompts}, at most ``BYTES_LIMIT`` of JSON.

    A prompt has {id, prompt, completions: {algorithm: [{seed, text, end, scores}]}}, the first sample of each seed.
    Text is clipped and has its invisible characters escaped; it is hostile all the same, to be set as text and never
    as HTML.
    """
    count, every_seed = max(1, PROMPTS // max(1, len(sections))), True
    while True:
        entries = [_entry(section, count, every_seed) for section in sections]
        if count == 1 or len(json.dumps(entries)) <= BYTES_LIMIT:
            return entries
        count, every_seed = (count if every_seed else count // 2), False


def _entry(section: Section, count: int, every_seed: bool) -> dict[str, Any]:
    seeds = {name: _seeds(section, name, every_seed) for name in section.finished}
    scores = {(name, seed): section.final_scores(name, seed) for name in seeds for seed in seeds[name]}
    texts = _texts(section, seeds)
    metrics = [name for name in dict.fromkeys((section.primary.name, *SHOWN)) if name in section.metrics]
    prompts = []
    for prompt_id in _choose(section, scores, count):
        shown: dict[str, list[dict[str, Any]]] = {}
        for name in section.ranked:
            rows = {seed: texts[name, seed, prompt_id] for seed in seeds[name] if (name, seed, prompt_id) in texts}
            if rows:
                shown[name] = [_completion(row, seed, scores[name, seed], metrics) for seed, row in rows.items()]
                question = next(iter(rows.values()))["prompt"]
        if shown:
            prompts.append({"id": visible(prompt_id), "prompt": _safe(question), "completions": shown})
    return {
        "algorithms": [name for name in section.ranked if any(name in prompt["completions"] for prompt in prompts)],
        "baseline": section.baseline,
        "primary": section.primary.name,
        "higher": section.higher_is_better,
        "prompts": prompts,
    }


def _completion(row: dict[Any, Any], seed: int, scores: pd.DataFrame, metrics: list[str]) -> dict[str, Any]:
    end = "cut off" if row["truncated"] else "" if row["ended_eos"] else "no EOS"
    own = scores.loc[row["prompt_id"]].astype(float).to_dict()
    values = {name: own[name] for name in metrics if name in own}
    finite = {name: round(value, 4) for name, value in values.items() if np.isfinite(value)}
    return {"seed": seed, "text": _safe(row["completion"]), "scores": finite, "end": end}


def _safe(text: Any) -> str:
    return clip(visible(text if isinstance(text, str) else json.dumps(_plain(text), ensure_ascii=False)), TEXT_LIMIT)


def _plain(value: Any) -> Any:
    """Lists and dictionaries of a chat prompt, as Parquet gives them back, without numpy types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _seeds(section: Section, name: str, every: bool) -> list[int]:
    """All seeds of an algorithm that ended well; or one: the lowest that all algorithms share, else its lowest."""
    primary = section.primary.name
    own = sorted(int(seed) for seed in section.grid(name, primary).index)
    if every:
        return own
    shared = set.intersection(*(set(section.grid(other, primary).index) for other in section.finished))
    return [min(shared & set(own), default=own[0])]


def _texts(section: Section, seeds: dict[str, list[int]]) -> dict[tuple[str, int, str], dict[Any, Any]]:
    """First samples of the chosen seeds, by (algorithm, seed, prompt_id)."""
    cells = section.cells
    wanted = [cell for cell, name, seed in zip(cells["id"], cells["algorithm"], cells["seed"], strict=True)
              if seed in seeds.get(name, ())]  # fmt: skip
    samples = section.results.samples(wanted)
    samples = samples[samples["sample"] == samples.groupby("id")["sample"].transform("min")]
    return {(row["algorithm"], int(row["seed"]), row["prompt_id"]): dict(row) for row in samples.to_dict("records")}


def _choose(section: Section, scores: dict[tuple[str, int], pd.DataFrame], count: int) -> list[str]:
    """Prompt ids: round by round each algorithm's next extreme, then random ones.

    Extremes are the biggest wins and losses against the baseline, the widest gaps between proxy and gold, and the
    highest KL, means over the seeds that the page holds.
    """
    by_algorithm: dict[str, list[pd.DataFrame]] = {}
    for (name, _), frame in scores.items():
        by_algorithm.setdefault(name, []).append(frame)
    means = {name: pd.concat(frames).groupby(level=0).mean() for name, frames in by_algorithm.items()}
    primary, orders = section.primary.name, []
    for name in section.trained:
        own = means[name]
        gains = own[primary] - means[section.baseline][primary] if section.baseline else own[primary]
        ranked = list(gains.dropna().sort_values().index)
        orders += [ranked[::-1], ranked]
        if {"train_reward", "gold_reward"} <= set(own):
            orders.append(list((own["train_reward"] - own["gold_reward"]).dropna().sort_values().index[::-1]))
        if "kl" in own:
            orders.append(list(own["kl"].dropna().sort_values().index[::-1]))
    known = sorted(set().union(*(frame.index for frame in means.values()))) if means else []
    extremes = [order[i] for i in range(max(1, count // 4)) for order in orders if i < len(order)]
    drawn = list(np.random.default_rng(SEED).permutation(known)) if known else []
    first = list(dict.fromkeys(extremes))[: max(1, count * 2 // 3)]
    return [str(prompt) for prompt in list(dict.fromkeys([*first, *drawn]))[:count]]
