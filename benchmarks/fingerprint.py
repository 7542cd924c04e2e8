"""One number for a task's data: equal exactly when all rows are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from bakeoff.contracts import Row


def fingerprint(train: Sequence[Row], test: Sequence[Row]) -> str:
    """sha256, in hex, over both splits as canonical JSON (sorted keys, UTF-8, no spaces)."""
    digest = hashlib.sha256()
    for name, rows in (("train", train), ("test", test)):
        for row in rows:
            text = json.dumps([name, dict(row)], sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
            digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
