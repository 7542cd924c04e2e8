"""Measuring a policy: sample once on held-out prompts, score those samples, hand them to every evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bakeoff.contracts import EvalContext, Evaluator, Judge, Need, Score, Task
from bakeoff.errors import PluginFailure
from bakeoff.rollout import Sequences, end_ids, sample, score, uniforms
from bakeoff.rows import Tokenised
from bakeoff.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bakeoff.roles import Role, RoleModel
    from bakeoff.setup import Setup

STORED = ["prompt_id", "sample", "fraction", "prompt", "completion", "n_tokens", "ended_eos", "truncated"]
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


def draw_policy(setup: Setup, rows: Sequence[Tokenised], evaluators: Sequence[Evaluator]) -> pd.DataFrame:
    """The policy's samples of held-out rows, scored token by token where one of the evaluators needs that."""
    spec, pad = setup.cell.evaluation, setup.tokenizer.pad_token_id
    samples = draw_samples(
        setup.roles,
        "policy",
        rows,
        setup.tokenizer,
        seed=setup.cell.seed,
        samples=spec.samples,
        max_new_tokens=setup.max_new_tokens,
        batch=spec.batch,
    )
    if any("logprobs" in evaluator.needs for evaluator in evaluators):
        samples = add_logps(samples, setup.roles, pad=pad, batch=spec.batch)
    return samples


def evaluate(
    evaluators: Sequence[Evaluator],
    rows: Sequence[Tokenised],
    samples: pd.DataFrame | None,
    reference_samples: pd.DataFrame | None,
    *,
    pairs: pd.DataFrame | None = None,
    task: Task,
    train_reward: Score | None,
    gold: Score | None,
    judge: Judge,
    fraction: float,
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """All evaluators whose needs are there. Returns ``scores`` and ``samples`` as the store keeps them.

    ``samples`` are None where no policy was trained, ``pairs`` where there is no reward model to measure.
    A number that is not finite is a ``PluginFailure``: it would vanish in a mean.
    """
    known = {row.row["id"] for row in rows}
    has: set[Need] = {"pairs"} if pairs is not None else set()
    if samples is not None and reference_samples is not None:
        has |= {"samples", "logprobs", "reference_samples"}
        reference_samples = reference_samples[reference_samples["prompt_id"].isin(known)]
    context = EvalContext(
        rows=[row.row for row in rows],
        samples=samples if samples is not None else pd.DataFrame(),
        reference_samples=reference_samples if reference_samples is not None else pd.DataFrame(),
        task=task,
        train_reward=train_reward,
        gold=gold,
        pairs=pairs,
        judge=judge,
    )
    # The columns and their types, where nobody has anything to measure.
    frames = [pd.DataFrame({"prompt_id": [""], "sample": [0], "metric": [""], "value": [0.0]}).iloc[:0]]
    for evaluator in evaluators:
        if not evaluator.needs <= has:
            continue
        try:
            frame = evaluator.score(context)
        except Exception as error:
            raise PluginFailure(f"evaluator {type(evaluator).__name__} failed") from error
        finite = frame["value"].astype(float).abs().lt(float("inf"))
        if not finite.all():
            metrics = ", ".join(frame.loc[~finite, "metric"].unique())
            raise PluginFailure(
                f"evaluator {type(evaluator).__name__} gave {(~finite).sum()} numbers that are not finite ({metrics})"
            )
        frames.append(frame[["prompt_id", "sample", "metric", "value"]])
    scores = pd.concat(frames, ignore_index=True)
    scores.insert(2, "fraction", fraction)
    if samples is None:
        return scores, None
    stored: dict[str, Any] = {
        name: samples[column].map(sum) for name, column in SUMS.items() if column in samples.columns
    }
    return scores, samples.assign(fraction=fraction)[STORED].assign(**stored)
