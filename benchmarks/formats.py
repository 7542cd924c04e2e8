"""TRL's standard dataset formats: which one a file is in, and one of its rows in bakeoff's columns.

| format         | columns                                   | prompt                                        |
|----------------|-------------------------------------------|-----------------------------------------------|
| preferences    | chosen, rejected, and prompt where given  | the column, or what both begin with           |
| messages       | messages                                  | what precedes the last assistant turn         |
| demonstrations | prompt, completion                        | the column                                    |
| prompts        | prompt                                    | the column                                    |
| text           | text                                      | the first words                               |

Prompts and completions are text or lists of role/content messages, alike within a row. See
https://huggingface.co/docs/trl/dataset_formats.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import Any, Literal

from .reading import describe

Format = Literal["preferences", "messages", "demonstrations", "prompts", "text"]
Standard = Literal["prompt", "completion", "chosen", "rejected", "messages", "text", "answer"]
Messages = list[dict[str, str]]

REQUIRED: dict[Format, tuple[Standard, ...]] = {
    "preferences": ("chosen", "rejected"),
    "messages": ("messages",),
    "demonstrations": ("prompt", "completion"),
    "prompts": ("prompt",),
    "text": ("text",),
}
"""The columns of each format, the most telling first."""

ALIASES: dict[Standard, tuple[str, ...]] = {
    "prompt": ("question", "instruction", "query", "problem", "input"),
    "completion": ("answer", "output", "response", "solution", "target"),
    "chosen": ("preferred", "chosen_response", "accepted"),
    "rejected": ("dispreferred", "rejected_response"),
    "text": ("sentence", "review", "content", "document"),
}
HH_TURN = "\n\nAssistant:"
"""What precedes each of the assistant's turns in Anthropic's hh-rlhf."""


class UnusableRowError(ValueError):
    """Why a row cannot be used."""


def detect(columns: Collection[str]) -> Format | None:
    """The format of a file with these columns, or None."""
    return next((name for name, required in REQUIRED.items() if set(required) <= set(columns)), None)


def suggest(columns: Collection[str]) -> dict[str, str]:
    """The mapping {standard name: the file's name} that would make these columns a known format; empty if none."""
    guess: dict[str, str] = {}
    for standard, aliases in ALIASES.items():
        free = [name for name in columns if name not in guess.values()]
        names = {name.lower(): name for name in free}
        close = difflib.get_close_matches(standard, names, n=1, cutoff=0.8)
        found = next((names[alias] for alias in (standard, *aliases, *close) if alias in names), None)
        if found is not None:
            guess[standard] = found
    form = detect(guess)
    return {name: guess[name] for name in REQUIRED[form] if guess[name] != name} if form else {}


def standardise(form: Format, values: Mapping[str, Any], prompt_words: int) -> dict[str, Any]:
    """A row's ``prompt`` and whichever of ``completion, chosen, rejected, text`` its format gives.

    The completion of a preference is the chosen one. Raises ``UnusableRowError`` with the reason.
    """
    if values.get("label") is False:
        raise UnusableRowError('"label" is false: this completion was rejected, it is no demonstration')
    if form == "preferences":
        return _preference(values)
    if form == "messages":
        return _conversation(values)
    if form == "text":
        return _opening(values, prompt_words)
    if form == "prompts":
        return {"prompt": _content(values, "prompt")}
    prompt, completion = _alike(_content(values, "prompt"), _content(values, "completion"))
    return {"prompt": prompt, "completion": completion}


def _preference(values: Mapping[str, Any]) -> dict[str, Any]:
    chosen, rejected = _content(values, "chosen"), _content(values, "rejected")
    prompt = None if _is_missing(values.get("prompt")) else _content(values, "prompt")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise UnusableRowError('one of "chosen" and "rejected" is text, the other a list of messages')
    if chosen == rejected:
        raise UnusableRowError('"chosen" and "rejected" are the same')
    # Some sets repeat the prompt, as text, beside whole conversations: the conversations say more.
    repeats_prompt = isinstance(prompt, str) and isinstance(chosen, list) and _n_equal(chosen, rejected) > 0
    if prompt is None or repeats_prompt:
        n_shared = _n_shared(chosen, rejected)
        prompt, chosen, rejected = chosen[:n_shared], chosen[n_shared:], rejected[n_shared:]
    if not prompt:
        raise UnusableRowError('no "prompt", and "chosen" and "rejected" share no beginning')
    if _is_missing(chosen) or _is_missing(rejected):
        raise UnusableRowError('"chosen" and "rejected" differ only in that one goes on')
    prompt, chosen, rejected = _alike(prompt, chosen, rejected)
    return {"prompt": prompt, "completion": chosen, "chosen": chosen, "rejected": rejected}


def _conversation(values: Mapping[str, Any]) -> dict[str, Any]:
    messages = _content(values, "messages")
    if isinstance(messages, str):
        raise UnusableRowError('"messages" is text, not a list of messages')
    turns = [position for position, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[-1] == 0:
        raise UnusableRowError('"messages" holds no assistant turn that answers something')
    return {"prompt": messages[: turns[-1]], "completion": [messages[turns[-1]]]}


def _opening(values: Mapping[str, Any], prompt_words: int) -> dict[str, Any]:
    text = _content(values, "text")
    if not isinstance(text, str):
        raise UnusableRowError('"text" is a list, not text')
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    if len(ends) <= prompt_words:
        raise UnusableRowError(f'"text" has {len(ends)} words; the first {prompt_words} are the prompt')
    end = ends[prompt_words - 1]
    return {"prompt": text[:end], "completion": text[end:], "text": text}


def _content(values: Mapping[str, Any], name: str) -> str | Messages:
    """Text or messages of a column, checked; messages are reduced to role and content."""
    value = values.get(name)
    if value is None:
        raise UnusableRowError(f'no "{name}"')
    if _is_missing(value):
        raise UnusableRowError(f'"{name}" is empty')
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise UnusableRowError(f'"{name}" is {describe(value)}, not text or a list of messages')
    return [_message(message, f'message {number} of "{name}"') for number, message in enumerate(value, start=1)]


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise UnusableRowError(f"{where} is {describe(message)}, not an object with role and content")
    for key in ("role", "content"):
        if message.get(key) is None:
            raise UnusableRowError(f'{where} has no "{key}", only {", ".join(map(str, message))}')
        if not isinstance(message[key], str):
            raise UnusableRowError(f'{where}: "{key}" is {describe(message[key])}, not text')
        if not message[key].strip():
            raise UnusableRowError(f'{where} has an empty "{key}"')
    return {"role": message["role"], "content": message["content"]}


def _alike(prompt: str | Messages, *completions: str | Messages) -> tuple[str | Messages, ...]:
    """All as messages when one is: text becomes one turn of the user, or of the assistant."""
    if all(isinstance(part, str) for part in (prompt, *completions)):
        return (prompt, *completions)
    roles = ("user", *["assistant"] * len(completions))
    return tuple(
        [{"role": role, "content": part}] if isinstance(part, str) else part
        for role, part in zip(roles, (prompt, *completions), strict=True)
    )


def _n_shared(chosen: str | Messages, rejected: str | Messages) -> int:
    """Where the shared beginning ends: characters of text, or messages.

    hh-rlhf's dialogues end it after the last shared "Assistant:", other text before its last white space.
    """
    length = _n_equal(chosen, rejected)
    if not isinstance(chosen, str):
        return length
    shared = chosen[:length]
    turn = shared.rfind(HH_TURN)
    if turn >= 0:
        return turn + len(HH_TURN)
    return max((space.start() for space in re.finditer(r"\s+", shared)), default=0)


def _n_equal(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many leading items two sequences share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _is_missing(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())
