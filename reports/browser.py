"""The data behind the side-by-side completions: few prompts, well chosen, cut to a size that a page can hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from .analysis import Section
from .files import clip, visible

PROMPTS = 40
"""Prompts embedded for one section: each algorithm's biggest wins and losses first, then random ones."""
TEXT_LIMIT = 2_000
"""Characters shown of one text."""
BYTES_LIMIT = 1_000_000
"""Of JSON, all sections together; prompts are halved until it fits."""
SHOWN = ("gold_reward", "train_reward", "kl", "length_tokens")
SEED = 0
"""Of the generator that draws the random prompts."""


def completions(sections: tuple[Section, ...]) -> list[dict[str, Any]]:
    """One entry a section: {algorithms, baseline, primary, metrics, prompts}, at most ``BYTES_LIMIT`` of JSON.

    A prompt has {id, prompt, completions: {algorithm: {seed, text, ended, metrics…}}}. Text is clipped and has its
    invisible characters escaped; it is hostile all the same, to be set as text and never as HTML.
    """
    count = max(1, PROMPTS // max(1, len(sections)))
    while True:
        entries = [_entry(section, count) for section in sections]
        if count == 1 or len(json.dumps(entries)) <= BYTES_LIMIT:
            return entries
        count //= 2


def _entry(section: Section, count: int) -> dict[str, Any]:
    seeds = {name: _seed(section, name) for name in section.finished}
    scores = {name: section.final_scores(name, seed) for name, seed in seeds.items()}
    texts = _texts(section, seeds)
    metrics = [name for name in dict.fromkeys((section.primary.name, *SHOWN)) if name in section.metrics]
    prompts = []
    for prompt_id in _choose(section, scores, count):
        rows = {name: texts[name, prompt_id] for name in section.ranked if (name, prompt_id) in texts}
        shown = {name: _completion(row, seeds[name], scores[name], metrics) for name, row in rows.items()}
        if rows:
            question = _safe(next(iter(rows.values()))["prompt"])
            prompts.append({"id": visible(prompt_id), "prompt": question, "completions": shown})
    return {
        "algorithms": [name for name in section.ranked if any(name in prompt["completions"] for prompt in prompts)],
        "baseline": section.baseline,
        "primary": section.primary.name,
        "higher": section.higher_is_better,
        "prompts": prompts,
    }


def _completion(row: dict[Any, Any], seed: int, scores: pd.DataFrame, metrics: list[str]) -> dict[str, Any]:
    end = "cut at the length limit" if row["truncated"] else "" if row["ended_eos"] else "no EOS"
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


def _seed(section: Section, name: str) -> int:
    """The lowest seed that every finished algorithm has, else the lowest of this one."""
    primary = section.primary.name
    have = [set(section.grid(other, primary).index) for other in section.finished]
    shared = set.intersection(*have)
    return int(min(shared or section.grid(name, primary).index))


def _texts(section: Section, seeds: dict[str, int]) -> dict[tuple[str, str], dict[Any, Any]]:
    """First samples of the chosen seeds, by (algorithm, prompt_id)."""
    cells = section.cells
    samples = section.results.samples(cells["id"][cells["seed"] == cells["algorithm"].map(seeds)])
    samples = samples[samples["sample"] == samples.groupby("id")["sample"].transform("min")]
    return {(row["algorithm"], row["prompt_id"]): dict(row) for row in samples.to_dict("records")}


def _choose(section: Section, scores: dict[str, pd.DataFrame], count: int) -> list[str]:
    """Prompt ids: round by round each algorithm's next biggest win and loss against the baseline, then random."""
    primary = section.primary.name
    base = scores[section.baseline][primary] if section.baseline else None
    orders = []
    for name in section.trained:
        gains = (scores[name][primary] - base if base is not None else scores[name][primary]).dropna().sort_values()
        orders += [list(gains.index[::-1]), list(gains.index)]
    known = sorted(set().union(*(frame.index for frame in scores.values()))) if scores else []
    extremes = [order[i] for i in range(max(1, count // 4)) for order in orders if i < len(order)]
    drawn = list(np.random.default_rng(SEED).permutation(known)) if known else []
    first = list(dict.fromkeys(extremes))[: max(1, count * 2 // 3)]
    return [str(prompt) for prompt in list(dict.fromkeys([*first, *drawn]))[:count]]
