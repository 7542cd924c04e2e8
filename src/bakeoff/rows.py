"""One tokenisation and one length rule for all algorithms: everybody trains on the same token ids.

Trainers drop and truncate rows by rules of their own. Here a row is left out once, for every algorithm alike,
when any part of it is too long, and what was left out is counted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from bakeoff.contracts import Row, TaskData, TaskSettings
from bakeoff.errors import Incompatible, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMPLETIONS = ("completion", "chosen", "rejected")


@dataclass(frozen=True)
class Tokenised:
    """A row as every algorithm sees it. ``completions`` holds those of completion, chosen, rejected that it has."""

    row: Row
    prompt: str
    prompt_ids: list[int]
    completions: Mapping[str, list[int]]
    text_ids: list[int] = field(default_factory=list)
    """The whole of a ``text`` row with EOS, however long; empty for other rows."""


@dataclass(frozen=True)
class CommonRows:
    """The rows left after the length rule, and how many were not, by reason."""

    train: Sequence[Tokenised]
    test: Sequence[Tokenised]
    left_out: Mapping[str, int]


def tokenise(data: TaskData, tokenizer: PreTrainedTokenizerBase, settings: TaskSettings) -> CommonRows:
    """Render, tokenise and filter both splits. Raises ``Incompatible`` when a split is left empty."""
    left_out: Counter[str] = Counter()
    splits = {}
    for split, rows in (("train", data.train), ("test", data.test)):
        splits[split] = [
            tokenised for row in rows if (tokenised := _usable(row, tokenizer, settings, left_out, split)) is not None
        ]
        if not splits[split]:
            reasons = ", ".join(f"{count} with {reason}" for reason, count in left_out.items())
            raise Incompatible(
                f"no {split} row is left of {len(rows)}: {reasons or 'there were none'}.",
                fix="Raise the task's max_prompt_tokens or max_new_tokens, or use another model's template.",
            )
    return CommonRows(splits["train"], splits["test"], dict(left_out))


def _usable(
    raw: Row, tokenizer: PreTrainedTokenizerBase, settings: TaskSettings, left_out: Counter[str], split: str
) -> Tokenised | None:
    """The row, tokenised; None when it is left out, which is counted."""
    try:
        row = tokenise_row(raw, tokenizer)
    except TemplateError:  # some templates take no system turn, or only turns that alternate
        left_out[f"a conversation that the chat template refuses ({split})"] += 1
        return None
    if row.text_ids:  # what follows a text's opening may be cut anywhere: it answers nothing
        row = replace(row, completions={name: ids[: settings.max_new_tokens] for name, ids in row.completions.items()})
    longest = max((len(ids) for ids in row.completions.values()), default=0)
    if not row.prompt_ids:
        left_out[f"an empty prompt ({split})"] += 1
    elif len(row.prompt_ids) > settings.max_prompt_tokens:
        left_out[f"a prompt over {settings.max_prompt_tokens} tokens ({split})"] += 1
    elif split == "train" and longest > settings.max_new_tokens:
        left_out[f"a completion over {settings.max_new_tokens} tokens ({split})"] += 1
    else:
        return row
    return None


def tokenise_row(row: Row, tokenizer: PreTrainedTokenizerBase) -> Tokenised:
    """One row: message lists through the chat template, plain text as it is; completions end with EOS."""
    prompt = row["prompt"]
    is_chat = not isinstance(prompt, str)
    text = _render(prompt, tokenizer, open_turn=True) if is_chat else prompt
    has_bos = bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
    prompt_ids = tokenizer(text, add_special_tokens=not (is_chat and has_bos))["input_ids"]
    completions = {}
    for name in COMPLETIONS:
        if name in row:
            rest = _reply(prompt, row[name], text, tokenizer) if is_chat else row[name]
            completions[name] = _continuation(text, prompt_ids, rest, tokenizer, is_chat and has_bos)
    text_ids = encode_text(row["text"], tokenizer) if isinstance(row.get("text"), str) else []
    return Tokenised(row, text, prompt_ids, completions, text_ids)


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The whole text with EOS."""
    return _ended(list(tokenizer(text)["input_ids"]), tokenizer)


def pieces(rows: Sequence[Tokenised], length: int) -> list[dict[str, Any]]:
    """The texts in pieces of at most ``length`` tokens: the columns of ``TrainContext.text``.

    Further pieces of a row are called "<id>#2" and so on.
    """
    return [
        {"id": f"{row.row['id']}#{start // length + 1}" if start else row.row["id"], "input_ids": ids}
        for row in rows
        for start in range(0, len(row.text_ids), length)
        if (ids := row.text_ids[start : start + length])
    ]


def blocks(texts: Iterable[Sequence[int]], length: int) -> list[list[int]]:
    """All tokens, text after text, in blocks of exactly ``length``; what is left at the end of the last is not used.

    One shorter block when there are not enough tokens for a full one.
    """
    tokens = list(itertools.chain.from_iterable(texts))
    full = [tokens[start : start + length] for start in range(0, len(tokens) - length + 1, length)]
    return full or ([tokens] if tokens else [])


def _render(messages: Any, tokenizer: PreTrainedTokenizerBase, *, open_turn: bool) -> str:
    if not tokenizer.chat_template:
        raise Incompatible(
            "the rows are conversations, but the model's tokenizer has no chat template.",
            fix="Use a chat model, or rows with plain text prompts.",
        )
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=open_turn))


def _reply(prompt: Any, reply: Any, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    messages = [{"role": "assistant", "content": reply}] if isinstance(reply, str) else list(reply)
    whole = _render([*prompt, *messages], tokenizer, open_turn=False)
    if whole.startswith(text):
        return whole[len(text) :].rstrip()
    # Some templates render an earlier turn differently once another follows it.
    return "\n".join(str(message["content"]) for message in messages)


def _continuation(
    text: str, prompt_ids: list[int], rest: str, tokenizer: PreTrainedTokenizerBase, has_bos: bool
) -> list[int]:
    """Ids of ``rest`` after the prompt's own ids: the context in training is then the context in sampling."""
    whole = tokenizer(text + rest, add_special_tokens=not has_bos)["input_ids"]
    if whole[: len(prompt_ids)] == prompt_ids:
        ids = list(whole[len(prompt_ids) :])
    else:
        ids = list(tokenizer(rest, add_special_tokens=False)["input_ids"])
    return _ended(ids, tokenizer)


def blank_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands for a hidden one: the mask token; without one "_", as LLM2Vec has it
    (arXiv:2404.05961); else the unknown token. Raises ``ModelError`` where there is none of the three."""
    for found in (tokenizer.mask_token_id, tokenizer.get_vocab().get("_"), tokenizer.unk_token_id):
        if found is not None:
            return int(found)  # type: ignore[arg-type]
    raise ModelError(
        "the model's tokenizer has no mask token, no token '_' and no unknown token to blank out others with.",
        fix="Choose another model for algorithms and evaluators that hide tokens.",
    )


def _ended(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids with EOS at their end."""
    eos: Any = tokenizer.eos_token_id
    return ids if ids and ids[-1] == eos else [*ids, eos]
