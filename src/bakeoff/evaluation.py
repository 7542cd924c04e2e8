"""Measuring a policy: sample once on held-out prompts, score those samples, hand them to every evaluator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bakeoff.contracts import Algorithm, CompletionContext, EvalContext, Evaluator, Judge, Score, Task
from bakeoff.errors import PluginFailure
from bakeoff.rollout import Completions, Sequences, end_ids, sample, score, uniforms
from bakeoff.rows import Tokenised
from bakeoff.scoring import score_samples
from bakeoff.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bakeoff.modelview import ModelView
    from bakeoff.roles import Role, RoleModel

KEYS = ["prompt_id", "sample"]
STORED = [*KEYS, "fraction", "prompt", "completion", "n_tokens", "ended_eos", "truncated"]
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
    records: list[dict[str, Any]] = []
    ends = end_ids(roles, tokenizer)
    for number in range(samples):
        draws = uniforms(derive_seed(seed, "evaluation", number), len(rows), max_new_tokens)
        with roles.use(role):
            drawn = sample(
                roles, [row.prompt_ids for row in rows], draws, eos=ends, pad=tokenizer.pad_token_id, batch=batch
            )
        records += _records(rows, number, drawn, tokenizer)
    return pd.DataFrame.from_records(records)


def write_samples(
    texts: Sequence[str],
    rows: Sequence[Tokenised],
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int,
    max_new_tokens: int,
) -> pd.DataFrame:
    """The same columns for completions that no model wrote: a text a row, and EOS where the length limit allows it."""
    encoded = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
    ids = [tokens[:max_new_tokens] for tokens in encoded]
    written = Completions(ids, [len(tokens) <= max_new_tokens for tokens in encoded])
    return pd.DataFrame.from_records(
        [record for number in range(samples) for record in _records(rows, number, written, tokenizer)]
    )


def _records(
    rows: Sequence[Tokenised], number: int, written: Completions, tokenizer: PreTrainedTokenizerBase
) -> Iterator[dict[str, Any]]:
    texts = tokenizer.batch_decode(written.ids, skip_special_tokens=True)
    for row, ids, ended, text in zip(rows, written.ids, written.ended_eos, texts, strict=True):
        yield {
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


def completions(algorithm: Algorithm, context: CompletionContext) -> pd.DataFrame:
    """``algorithm.complete``, held to its contract.

    Raises ``PluginFailure`` when it raises, or its frame is not one completion a (row, sample).
    """
    name = type(algorithm).__name__
    try:
        frame = algorithm.complete(context)
    except Exception as error:
        raise PluginFailure(f"{name}.complete() failed") from error
    if missing := [column for column in STORED if column not in frame.columns and column != "fraction"]:
        raise PluginFailure(f"{name}.complete() gave no column {', '.join(missing)}")
    wanted = {(row["id"], number) for row in context.rows for number in range(context.samples)}
    given = list(zip(frame["prompt_id"], frame["sample"], strict=True))
    if len(given) != len(wanted) or set(given) != wanted:
        raise PluginFailure(
            f"{name}.complete() gave {len(given)} completions, not one each for {context.samples} samples of "
            f"{len(context.rows)} prompts"
        )
    return frame


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
    """All evaluators on one set of samples. Returns ``scores`` and ``samples`` as the store keeps them.

    Of log-probabilities the store keeps each completion's sums, and at the end the KL of every token: four bytes each.
    """
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
    if fraction == 1.0 and "token_kl" in samples.columns:
        stored["token_kl"] = samples["token_kl"].map(lambda values: np.asarray(values, dtype=np.float32))
    return scores, samples.assign(fraction=fraction)[STORED].assign(**stored)
