"""Where a run ran: versions, commit, hardware, command line. Written beside the results, secrets left out."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "bakeoff", "torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers",
    "safetensors", "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "pydantic", "vaderSentiment",
    "reasoning-gym",
)  # fmt: skip

_SECRET_NAME = (
    r"(?:api[_-]?key|secret|passw(?:or)?d|credential|auth|(?:access|api|hf|bearer)[_-]?token|(?<![a-z_])token)"
)
_SECRETS = (
    re.compile(rf"(?i)((?:^|[\s.,\-_]){_SECRET_NAME}[\"']?\s*[=:]\s*)[^\s,]+"),
    re.compile(r"()\b(?:sk-|hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_\-]{12,}"),
    re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)"),
)
_SECRET_FLAG = re.compile(rf"(?i)--?[a-z-]*{_SECRET_NAME}")


def environment() -> dict[str, Any]:
    """What ``environment.json`` holds. Nothing here changes a result's identity; it explains results."""
    import psutil

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "threads": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": list(gpus()),
        "packages": versions(),
        "git": git_state(Path.cwd()),
        "command": command_line(sys.argv),
    }


def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that holds ``folder`` and whether it has uncommitted changes."""
    commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "dirty": bool(_output("git", "-C", str(folder), "status", "--porcelain"))}


def command_line(arguments: list[str]) -> str:
    """The command as one would type it again, with the values of keys and passwords as ``***``."""
    program, *rest = arguments or ["bakeoff"]
    bakeoff = Path(program).stem in ("bakeoff", "__main__")
    words = ["bakeoff" if bakeoff else Path(program).name]
    for word in rest:
        words.append("***" if _SECRET_FLAG.fullmatch(words[-1]) else scrub(word))
    return shlex.join(words).replace("'***'", "***")


def scrub(text: str) -> str:
    """``text`` with what looks like a key, a password or a token replaced by ``***``."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text


# ------------------------------------------------------------------------------------ hardware


def cores() -> int:
    """CPU cores that this process may use: its affinity, and a container's quota where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, math.floor(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        pass
    return allowed


@functools.cache
def gpus() -> tuple[str, ...]:
    """Name, memory and driver of each NVIDIA GPU, as nvidia-smi tells them; empty without one."""
    if not shutil.which("nvidia-smi"):
        return ()
    told = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return tuple(line.strip() for line in told.splitlines())


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _output(*command: str) -> str:
    """What the command prints; empty when it is not installed, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
