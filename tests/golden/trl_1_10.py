"""A virtual environment with TRL 1.10, the last to ship ``PPOTrainer``: makes it once and prints its interpreter.

    $(python tests/golden/trl_1_10.py) SCRIPT

It lies in bakeoff's cache and holds TRL 1.10 alone. All else, torch and bakeoff too, is seen from the environment that
runs this file, so both sides of a comparison stand on the same versions. Nothing of bakeoff depends on it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from filelock import FileLock

from bakeoff.modelfiles import cache_folder

VERSION = "1.10.0"


def interpreter() -> Path:
    """Path of the environment's Python; makes the environment unless it is there."""
    folder = cache_folder() / f"trl-{VERSION}-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").is_file():
            venv.create(folder, clear=True, with_pip=True)
            install = [python, "-m", "pip", "install", "--quiet", "--no-deps", f"trl=={VERSION}"]
            subprocess.run(install, check=True, stdout=sys.stderr)
            (site,) = folder.glob("lib/python*/site-packages")
            # Appended to the path, so that this TRL shadows the other; addsitedir follows editable installs, too.
            others = [path for path in sys.path if Path(path).name == "site-packages"]
            (site / "others.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in others))
            (folder / "complete").touch()
    return python


if __name__ == "__main__":
    print(interpreter())
