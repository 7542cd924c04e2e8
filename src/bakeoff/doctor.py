"""Checks that this machine can run a bake-off, and says how to mend what cannot."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bakeoff import catalogue, environment, registry
from bakeoff.cellprocess import TELEMETRY_OFF
from bakeoff.executors import default_workers
from bakeoff.store import runs_folder

NF4_CHECK = """
import torch, bitsandbytes as bnb
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
weight = torch.randn(64, 64)
layer = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
layer = layer.to(device)
x = torch.randn(8, 64, device=device, requires_grad=True)
y = layer(x)
y.sum().backward()
exact = x.detach() @ weight.to(device).T
error = ((y - exact).norm() / exact.norm()).item()
assert 0 < error < 0.2, f"relative error {error:.3f} of a 4-bit product, expected about 0.1"
assert torch.isfinite(x.grad).all(), "no gradient passes through the 4-bit layer"
print(f"forward and backward on {device}, relative error {error:.3f}")
"""


@dataclass(frozen=True)
class Check:
    """What was looked at and found. "warning" does not stop a run; "broken" does."""

    name: str
    state: Literal["ok", "warning", "broken"]
    detail: str
    fix: str = ""


def examine(runs: Path | None = None) -> Iterator[Check]:
    """All checks, one by one as they end. A check that raises is itself broken, and the rest go on."""
    checks: dict[str, Callable[[], Check]] = {
        "python": _python,
        "packages": _packages,
        "device": _device,
        "nf4": _nf4,
        "memory": _memory,
        "runs": lambda: _writable("runs", runs_folder(runs)),
        "cache": _cache,
        "telemetry": _telemetry,
        "plugins": _plugins,
    }
    for name, check in checks.items():
        try:
            yield check()
        except Exception as error:
            yield Check(name, "broken", f"{type(error).__name__}: {error}")


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    state: Literal["ok", "broken"] = "ok" if sys.version_info >= (3, 11) else "broken"
    return Check("python", state, f"{version} at {sys.executable}", "Use Python 3.11 or newer.")


def _packages() -> Check:
    """Against what bakeoff requires (else broken), and in a checkout the versions tested (else a warning)."""
    from packaging.requirements import Requirement

    wrong, other = [], []
    for text in importlib.metadata.requires("bakeoff") or []:
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            have = _version(need.name)
            if have is None or not need.specifier.contains(have, prereleases=True):
                wrong.append(f"{need} (found {have or 'none'})")
    constraints = Path(__file__).parents[2] / "constraints.txt"
    if constraints.exists():
        for line in constraints.read_text().splitlines():
            name, equals, tested = (part.strip() for part in line.split("#")[0].split(";")[0].partition("=="))
            have = _version(name) if equals else None
            if have and have.split("+")[0] != tested.split("+")[0]:
                other.append(f"{name} {have} (tested {tested})")
    if wrong:
        return Check("packages", "broken", "; ".join(wrong), "Install again: pip install -U bakeoff")
    if other:
        return Check(
            "packages", "warning", "; ".join(other), "Install the tested ones: pip install -c constraints.txt -e ."
        )
    return Check("packages", "ok", ", ".join(f"{name} {have}" for name, have in environment.versions().items()))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> Check:
    import torch

    workers = default_workers()
    threads = environment.cores() // workers
    split = f"{environment.cores()} cores, {workers} workers of {threads} threads by default"
    if torch.cuda.is_available():
        return Check("device", "ok", f"{torch.cuda.get_device_name()}; {split}")
    if environment.gpus():
        return Check(
            "device", "warning", f"torch {torch.__version__} cannot use {environment.gpus()[0]}; {split}",
            "Install a CUDA build of torch: https://pytorch.org/get-started",
        )  # fmt: skip
    return Check("device", "ok", f"CPU, {environment.cpu_model()}; {split}")


def _nf4() -> Check:
    """In a process of its own: a broken native library takes its process with it."""
    fix = "Without it, use precision: bf16 in the matrix. See https://github.com/bitsandbytes-foundation/bitsandbytes"
    try:
        done = subprocess.run(
            [sys.executable, "-c", NF4_CHECK], capture_output=True, text=True, timeout=300, check=False,
            env=os.environ | TELEMETRY_OFF,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Check("nf4", "broken", "a 4-bit product took more than 5 minutes", fix)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [
        f"exit code {done.returncode}"
    ]
    return Check("nf4", "ok" if done.returncode == 0 else "broken", said[-1], fix)


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / 2**30:.1f} GiB of {memory.total / 2**30:.1f} GiB free"
    few = memory.available < 3 * 2**30
    return Check("memory", "warning" if few else "ok", detail, "A cell of a 135M model needs about 3 GiB.")


def _cache() -> Check:
    from bakeoff.modelfiles import cache_folder

    return _writable("cache", cache_folder())


def _writable(name: str, folder: Path) -> Check:
    """Whether files can be made in ``folder``, or in the nearest folder above it that exists."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Check(
            name,
            "broken",
            f"{folder} cannot be written: {error.strerror}",
            f"Set BAKEOFF_{name.upper()} to another folder.",
        )
    free = shutil.disk_usage(there).free
    state: Literal["ok", "warning"] = "warning" if free < 2 * 2**30 else "ok"
    return Check(name, state, f"{folder.absolute()} is writable, {free / 2**30:.1f} GiB free", "Free at least 2 GiB.")


def _telemetry() -> Check:
    return Check(
        "telemetry",
        "ok",
        "off in every cell: " + ", ".join(f"{key}={value}" for key, value in TELEMETRY_OFF.items()),
    )


def _plugins() -> Check:
    found = [catalogue.describe(kind, name) for kind in registry.BASES for name in registry.names(kind)]
    broken = [" ".join(info.error.split()) for info in found if info.error]
    if broken:
        return Check("plugins", "broken", "\n        ".join(broken), "Mend or uninstall the plugin's distribution.")
    return Check("plugins", "ok", f"{len(found)} load")
