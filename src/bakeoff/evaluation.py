"""Measuring a policy: sample once on held-out prompts, score those samples, hand them to every evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bakeoff.contracts import EvalContext, Evaluator, Judge, Score, Task
from bakeoff.rollout import Sequences, end_ids, sample, score, uniforms
from bakeoff.rows import Tokenised
from bakeoff.scoring import score_samples
from bakeoff.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bakeoff.modelview import ModelView
    from bakeoff.roles import Role, RoleModel

STORED = ["prompt_id", "sample", "fraction", "prompt", "completion", "n_tokens", "ended_eos", "truncated"]
SCORED = ["prompt_id", "sample", "metric", "value"]
SUMS = {"logp": "token_logps", "reference_logp": "token_reference_logps", "kl": "token_kl"}


def draw_samples(
    roles: RoleModel,
    role: Role,
    rows: Sequence[Tokenised],
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    samples: int,
    max_new_tokens: int,
    batch: int,
) -> pd.DataFrame:
    """Sample ``samples`` completions a row under ``role``; the columns of ``EvalContext.samples`` and the ids.

    The draws depend on ``seed``, the row's place and the sample's number alone: policies of one seed are
    sampled with common random numbers, so an unchanged policy gives unchanged text.
    """
    records = []
    ends = end_ids(roles, tokenizer)
    for number in range(samples):
        draws = uniforms(derive_seed(seed, "evaluation", number), len(rows), max_new_tokens)
        with roles.use(role):
            drawn = sample(
                roles, [row.prompt_ids for row in rows], draws, eos=ends, pad=tokenizer.pad_token_id, batch=batch
            )
        texts = tokenizer.batch_decode(drawn.ids, skip_special_tokens=True)
        for row, ids, ended, text in zip(rows, drawn.ids, drawn.ended_eos, texts, strict=True):
            records.append(
                {
                    "prompt_id": row.row["id"],
                    "sample": number,
                    "prompt": row.prompt,
                    "completion": text,
                    "n_tokens": len(ids),
                    "ended_eos": ended,
                    "truncated": not ended,
                    "prompt_ids": row.prompt_ids,
                    "completion_ids": ids,
                }
            )
    return pd.DataFrame.from_records(records)


def no_samples() -> pd.DataFrame:
    """What there is of a policy that is not sampled."""
    return pd.DataFrame(columns=[name for name in STORED if name != "fraction"])


def add_logps(frame: pd.DataFrame, roles: RoleModel, *, pad: int, batch: int) -> pd.DataFrame:
    """Score the samples under policy and reference; adds the ``token_*`` lists of ``EvalContext.samples``."""
    columns: dict[str, Any] = {name: [] for name in SUMS.values()}
    for start in range(0, len(frame), batch):
        part = frame.iloc[start : start + batch]
        sequences = Sequences.pack(
            part["prompt_ids"].tolist(), part["completion_ids"].tolist(), pad=pad, device=roles.device
        )
        scores = score(roles, sequences, batch=batch)
        lengths = part["n_tokens"].tolist()
        for name, values in zip(columns, (scores.logps, scores.reference_logps, scores.kl), strict=True):
            columns[name] += [row[:length] for row, length in zip(values.tolist(), lengths, strict=True)]
    return frame.assign(**columns)


def evaluate(
    evaluators: Sequence[Evaluator],
    rows: Sequence[Tokenised],
    samples: pd.DataFrame,
    reference_samples: pd.DataFrame,
    *,
    task: Task,
    train_reward: Score | None,
    gold: Score | None,
    judge: Judge,
    model: ModelView,
    fraction: float,
    pairs: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All evaluators on one set of samples. Returns ``scores`` and ``samples`` as the store keeps them."""
    known = {row.row["id"] for row in rows}
    context = EvalContext(
        rows=[row.row for row in rows],
        samples=samples,
        reference_samples=reference_samples[reference_samples["prompt_id"].isin(known)],
        task=task,
        train_reward=train_reward,
        gold=gold,
        judge=judge,
        pairs=pairs,
    )
    scores = score_samples(evaluators, context, model)
    scores.insert(2, "fraction", fraction)
    stored: dict[str, Any] = {
        name: samples[column].map(sum) for name, column in SUMS.items() if column in samples.columns
    }
    return scores, samples.assign(fraction=fraction)[STORED].assign(**stored)
