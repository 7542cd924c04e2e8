"""The folder's README: its snippets run."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "reports" / "README.md"


def test_snippets_run(run, tmp_path):
    """The first snippet prints the gains of a run, and the plugin of the second writes its file."""
    first, plugin = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    (tmp_path / "runs").mkdir()
    run.folder.rename(tmp_path / "runs" / "quickstart")
    use = "\nprint(Words().write(results, Path('report'))[0].read_text())"
    done = subprocess.run(
        [sys.executable, "-c", first + plugin + use], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "grpo-lr3 0.3" in done.stdout
    assert "random-effects t intervals" in done.stdout
