"""Text and files that every writer shares: visible escapes for hostile text, atomic writes."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that a reader cannot see: control, bidi and zero-width, surrogates, unassigned."""


def visible(text: str) -> str:
    """``text`` with every character that hides or reorders others written as an escape, ``\\u202e``.

    Newline and tab stay. So a completion can neither hide text from the reader nor make it read backwards.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(escaped(c) if c not in "\n\t" and unicodedata.category(c) in HIDDEN else c for c in text)


def escaped(character: str) -> str:
    """The escape of one character, as Python writes it: ``\\x00``, ``\\u202e``, ``\\U0001f642``."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clip(text: str, limit: int) -> str:
    """At most ``limit`` characters of ``text``, and how many were cut."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def slug(*parts: str) -> str:
    """A file name made of ``parts``: lower case, digits and hyphens only."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") or "x" for part in parts)


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write under a temporary name and rename: a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
