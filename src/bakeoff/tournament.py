"""A judge over what a run stored: every two algorithms on equal terms, each against its start, and the canaries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from bakeoff.contracts import Judge
from bakeoff.judging import Outcome, ask, canaries
from bakeoff.stored import KEYS, SECTION, StoredCell

CANARY_PROMPTS = 32
"""Prompts that each canary is asked on: enough for a sign test to tell a judge that falls for it."""
VERDICTS = [*SECTION, "seed", *KEYS, "a", "b", "forward", "backward", "value"]
"""``a`` and ``b`` are cell ids; ``b`` is empty where ``a`` was compared with the sample that it started from."""
CANARIES = [*SECTION, "canary", "prompt_id", "forward", "backward", "value"]
SIDES = ["completion_a", "completion_b"]


class Tournament(NamedTuple):
    """All comparisons of a run by one judge. ``value`` is ``Outcome.value``, NaN where a verdict was invalid."""

    verdicts: pd.DataFrame
    canaries: pd.DataFrame
    asked: int = 0
    """Comparisons that were new and of two different texts."""
    invalid: int = 0
    """Those of them without a valid verdict."""


def play(judge: Judge, cells: Sequence[StoredCell], earlier: Tournament, with_start: Collection[str]) -> Tournament:
    """``earlier``, with every comparison of final samples that it lacks or has no valid verdict of.

    Cells meet where they share model, task, budget, seed, prompt and sample; those in ``with_start`` (ids) also meet
    the sample that they started from.
    """
    kept = earlier.verdicts[earlier.verdicts["value"].notna()]
    verdicts, tricks, asked, invalid = [kept], [earlier.canaries], 0, 0
    for section in dict.fromkeys(cell.section for cell in cells):
        members = [cell for cell in cells if cell.section == section]
        place = dict(zip(SECTION, section, strict=True))
        context = members[0].context(pd.concat([cell.final for cell in members]), with_start=False)
        rows = {row["id"]: row for row in context.rows}
        new = _without(_pairs(members, with_start), kept).assign(**place)
        if len(new):
            sides = [new[side].tolist() for side in SIDES]
            outcomes = ask(judge, context, [rows[name] for name in new["prompt_id"]], *sides)
            verdicts.append(_with(new, outcomes))
            asked += int((new[SIDES[0]] != new[SIDES[1]]).sum())
            invalid += sum(outcome.value is None for outcome in outcomes)
        if not (earlier.canaries[SECTION] == list(section)).all(axis=1).any():
            held = _answers(members).assign(**place)
            said = canaries(judge, context, [rows[name] for name in held["prompt_id"]], held["completion"].tolist())
            tricks += [_with(held.assign(canary=name), outcomes) for name, outcomes in said.items()]
    return Tournament(stack(verdicts, VERDICTS), stack(tricks, CANARIES), asked, invalid)


def _pairs(cells: Sequence[StoredCell], with_start: Collection[str]) -> pd.DataFrame:
    """Both completions of every comparison of one section."""
    columns = [*KEYS, "completion"]
    frames = [
        cell.final[columns].merge(cell.start[columns], on=KEYS, suffixes=("_a", "_b"), validate="one_to_one")
        .assign(seed=cell.spec.seed, a=cell.id, b="")
        for cell in cells if cell.id in with_start
    ] + [
        a.final[columns].merge(b.final[columns], on=KEYS, suffixes=("_a", "_b"), validate="one_to_one")
        .assign(seed=a.spec.seed, a=a.id, b=b.id)
        for a, b in combinations(cells, 2) if a.spec.seed == b.spec.seed
    ]  # fmt: skip
    return stack(frames, ["seed", *KEYS, "a", "b", *SIDES])


def _without(pairs: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    def keys(frame: pd.DataFrame) -> pd.MultiIndex:
        return pd.MultiIndex.from_frame(frame[["a", "b", *KEYS]])

    return pairs[~keys(pairs).isin(keys(known))].reset_index(drop=True)


def _answers(cells: Sequence[StoredCell]) -> pd.DataFrame:
    """Answers that canaries are held against: of one seed's trained policies, each prompt another one's in turn."""
    trained = [cell for cell in cells if cell.trains] or list(cells)
    answers = [
        cell.final.drop_duplicates("prompt_id").set_index("prompt_id")["completion"]
        for cell in trained
        if cell.spec.seed == trained[0].spec.seed
    ]
    prompts = [name for name in answers[0].index if all(name in other.index for other in answers)][:CANARY_PROMPTS]
    texts = [answers[number % len(answers)][name] for number, name in enumerate(prompts)]
    return pd.DataFrame({"prompt_id": prompts, "completion": texts})


def _with(frame: pd.DataFrame, outcomes: Sequence[Outcome]) -> pd.DataFrame:
    return frame.assign(
        forward=[outcome.forward for outcome in outcomes],
        backward=[outcome.backward for outcome in outcomes],
        value=pd.Series([outcome.value for outcome in outcomes], index=frame.index, dtype=float),
    )


def stack(frames: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """These columns of the frames that have rows, one below the other."""
    kept = [frame[columns] for frame in frames if len(frame)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=columns)
