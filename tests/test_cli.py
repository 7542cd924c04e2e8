"""The command line says what happened, with the right exit code, and starts fast."""

import errno
import importlib
import json
import subprocess
import sys

import pytest

import bakeoff
from bakeoff import planning, reporting, runner, setup
from bakeoff.contracts import BadRow, TaskData
from bakeoff.doctor import Check


@pytest.fixture
def matrix(tmp_path, fake_lab, monkeypatch):
    """A matrix of one fake algorithm that ends well and one that fails, run under ``tmp_path/runs``."""
    monkeypatch.setattr(planning, "WORKER", "fake_lab")
    monkeypatch.setattr(reporting, "read_results", lambda store, **_: f"results of {store.folder.name}")
    monkeypatch.setattr(reporting, "leaderboard", lambda results: f"leaderboard: {results}")
    monkeypatch.setattr(reporting, "refresh_reports", lambda store, results: True)
    monkeypatch.setenv("BAKEOFF_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "model").mkdir()
    path = tmp_path / "matrix.yaml"
    path.write_text(
        "name: mine\nmodels: [{folder: model, label: m}]\ntasks: [fake]\nbudgets: [{name: b, steps: 1}]\n"
        "algorithms:\n  - {name: fake, label: good, do: ok}\n  - {name: fake, label: bad, do: broken}\n"
        "seeds: 1\nevaluators: [fake]\njudge: fake\n"
    )
    return str(path)


def test_help_imports_nothing_heavy():
    """``bakeoff --help`` lists the commands and leaves torch, pandas and their like alone."""
    script = (
        "import sys; from bakeoff.cli import main; sys.argv = ['bakeoff', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'numpy', 'trl', 'matplotlib', 'psutil'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
    for name in ("run", "plan", "status", "report", "score", "compare", "gate", "plugins", "doctor"):
        assert name in said


@pytest.mark.parametrize(
    "name",
    [
        *("run", "plan", "status", "report", "score", "compare", "gate", "doctor", "new"),
        *("plugins list", "plugins show", "plugins check"),
    ],
)
def test_every_command_has_an_example(name, command):
    """The help of each command ends with a command line to copy."""
    code, said, _ = command(*name.split(), "--help")
    assert code == 0
    assert f"bakeoff {name}" in said.split("Example")[1]


def test_run_ends_with_table_report_and_failures(matrix, command):
    """A run prints the leaderboard and where the report is, names what failed, and exits with 1."""
    code, said, problems = command("run", matrix, "--workers", "1")
    assert code == 1
    assert "leaderboard: results of mine" in said
    assert said.rstrip().endswith("mine/report/index.html")
    assert "bad seed 0: infra_error: ValueError: first line" in problems
    assert "log.txt" in problems


def test_the_reports_path_is_printed_as_it_is(matrix, command, tmp_path):
    """Brackets in a folder's name are no markup."""
    _, said, _ = command("run", matrix, "--only", "algorithm=good", "--runs", str(tmp_path / "[red]" / "[x]"))
    assert said.rstrip().endswith("/[red]/[x]/mine/report/index.html")


def test_run_of_what_is_done_says_so(matrix, command):
    """Running what is done exits with 0 and trains nothing."""
    assert command("run", matrix, "--only", "algorithm=good")[0] == 0
    code, said, _ = command("run", matrix, "--only", "algorithm=good")
    assert code == 0
    assert "Nothing to do" in said


def test_run_of_what_cannot_run_says_so(matrix, command):
    """A cell that is incompatible is not called done."""
    code, said, problems = command(
        "run", matrix, "--set", "algorithms.good.do=incompatible", "--only", "algorithm=good"
    )
    assert code == 0
    assert "Nothing to do: every other cell is done." in said
    assert "1 cell cannot run; `bakeoff status` says why." in problems


def test_stopped_run_says_how_to_resume(matrix, command, monkeypatch):
    """After Ctrl-C the command to resume is printed and the exit code is 130."""
    monkeypatch.setattr(runner, "run", lambda *_, **__: runner.Summary({"ok": 1, "not_run": 2}, interrupted=True))
    code, _, problems = command("run", matrix, "--only", "algorithm=good")
    assert code == 130
    assert "2 cells to go" in problems
    assert f"bakeoff run {matrix} --only algorithm=good" in problems


def test_plan_lists_cells_and_writes_nothing(matrix, command, tmp_path):
    """A plan shows state, time and memory of every cell, also as JSON, and leaves no trace."""
    code, said, _ = command("plan", matrix)
    assert code == 0
    assert "2 to do, about 27s of cell time" in said
    assert "1.0 GiB" in said
    assert "a guess" in said
    rows = json.loads(command("plan", matrix, "--json")[1])
    assert [(row["algorithm"], row["state"], row["estimated_s"]) for row in rows] == [
        ("good", "to do", 14.0),
        ("bad", "to do", 13.0),
    ]
    assert not (tmp_path / "runs").exists()


def test_plan_shows_what_is_shared_and_what_exists(matrix, command, tmp_path):
    """A line a stage: who uses it, and whether it is there; in JSON, each cell with its own."""
    rows = json.loads(command("plan", matrix, "--json")[1])
    good, bad = ([stage["id"] for stage in row["stages"]] for row in rows)
    assert good[0] == bad[0]
    assert good[1] != bad[1]
    (tmp_path / "runs" / "mine" / "stages" / good[0]).mkdir(parents=True)
    said = {line.split()[0]: line for line in command("plan", matrix)[1].splitlines() if line.strip()}
    assert said[good[0]].split()[1:] == ["samples", "of", "all", "done", "2", "good,", "bad", "0"]
    assert said[good[1]].split()[1:] == ["its", "own", "to", "do", "1", "good", "0"]
    rows = json.loads(command("plan", matrix, "--json")[1])
    assert [[stage["state"] for stage in row["stages"]] for row in rows] == [["done", "to do"]] * 2


@pytest.fixture
def bad_rows(fake_lab, monkeypatch):
    """Gives the fake task two rows that cannot be used."""
    from fake_lab import FakeTask

    bad = (BadRow("films.csv", 4, "no prompt"), BadRow("films.csv", 9, "no prompt"))
    data = TaskData([{}] * 3, [{}], frozenset(), "0", "CC0", "nowhere", bad_rows=bad)
    setup._task_and_data.cache_clear()
    monkeypatch.setattr(FakeTask, "load", lambda self: data)
    yield
    setup._task_and_data.cache_clear()


@pytest.mark.parametrize("words", [("plan",), ("plan", "--json"), ("run",)])
def test_bad_rows_are_said_once_a_task(words, matrix, bad_rows, command):
    """How many rows are usable, how many not, and where the first is; beside the output that programs read."""
    _, _, problems = command(*words, matrix)
    said = "fake: 3 train / 1 test rows, 2 bad rows, first: films.csv:4 no prompt\n"
    assert problems.count("bad row") == 1
    assert said in problems


def test_task_that_cannot_be_loaded_is_no_traceback(matrix, bad_rows, command, monkeypatch):
    """A plan names the task and what its code raised, with exit code 2."""
    monkeypatch.setattr("fake_lab.FakeTask.load", lambda self: {}["label"])
    code, _, problems = command("plan", matrix)
    assert code == 2
    assert problems.startswith("task 'fake' could not be loaded: KeyError: 'label'")
    assert "Traceback" not in problems


def test_status_finds_the_run(matrix, command):
    """The status of the last run, by table and as JSON."""
    command("run", matrix)
    _, said, _ = command("status")
    assert "2/2 cells" in said
    assert "ValueError: first line" in said
    state = json.loads(command("status", "mine", "--json")[1])
    assert (state["ended"], state["failed"], state["total"]) == (2, 1, 2)
    assert {cell["label"]: cell["state"] for cell in state["cells"]} == {
        "good seed 0": "ok",
        "bad seed 0": "infra_error",
    }


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["run", "no_such_matrix"], "no_such_matrix", "Stock matrices"),
        (["status", "nothing"], "nothing", "Runs in"),
        (["plugins", "show", "algorithm", "nothing"], "nothing", "Installed"),
        (["plugins", "show", "thing", "dpo"], "'thing' is no kind of plugin", "algorithm"),
    ],
)
def test_errors_say_what_and_how_to_mend(words, what, fix, matrix, command):
    """An error is told on stderr with its way out, without a traceback, with exit code 2."""
    code, said, problems = command(*words)
    assert code == 2
    assert said == ""
    assert what in problems
    assert fix in problems
    assert "Traceback" not in problems


def test_a_path_that_cannot_be_written_is_no_traceback(matrix, command, tmp_path):
    """Of what the system refuses the path is told, and where to look."""
    (tmp_path / "file").write_text("")
    code, said, problems = command("run", str(matrix), "--runs", str(tmp_path / "file"))
    assert (code, said) == (2, "")
    assert f"{tmp_path / 'file'}" in problems
    assert "permissions" in problems
    assert "Traceback" not in problems


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(errno.ENOSPC, "No space left on device"), "No space left"), (ConnectionResetError("by peer"), None)],
)
def test_only_the_disks_errors_are_told_without_a_traceback(error, told, matrix, command, monkeypatch):
    """A full disk has no path and is the user's to mend; a connection that ended may be a bug."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(runner, "run", fail)
    if told:
        assert told in command("run", matrix)[2]
    else:
        with pytest.raises(ConnectionResetError):
            command("run", matrix)


def test_debug_shows_the_traceback(command):
    """``--debug`` lets the exception through."""
    with pytest.raises(bakeoff.errors.BakeoffError):
        command("--debug", "run", "no_such_matrix")


def test_plugins_are_listed_and_shown(fake_lab, command):
    """Every installed plugin is listed; one is shown with its settings and their defaults."""
    rows = json.loads(command("plugins", "list", "--json")[1])
    assert {"kind": "algorithm", "name": "fake"}.items() <= next(row for row in rows if row["name"] == "fake").items()
    _, said, _ = command("plugins", "show", "algorithm", "fake")
    assert "Fake Policy Optimization" in said
    assert "do" in said.split()
    assert "ok" in said.split()


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warning", 0), ("broken", 1)])
def test_doctor_fails_when_something_is_broken(state, code, command, monkeypatch):
    """The doctor's exit code is 1 when a check is broken; only what is not well gets advice."""
    monkeypatch.setattr("bakeoff.doctor.examine", lambda runs: iter([Check("heart", state, "it beats", "Rest.")]))
    ended, said, _ = command("doctor")
    assert ended == code
    assert "heart: it beats" in said
    assert ("Rest." in said) is (state != "ok")
    assert json.loads(command("doctor", "--json")[1])[0]["state"] == state


def test_python_function_is_the_same_run(matrix):
    """``bakeoff.run`` does what ``bakeoff run`` does and returns the results."""
    assert bakeoff.run(matrix, only=["algorithm=good"], name="other") == "results of other"


@pytest.fixture
def scored(matrix, command, monkeypatch):
    """A run, and a place for what ``bakeoff score`` asks to be scored."""
    from bakeoff import scoring

    command("run", matrix, "--only", "algorithm=good")
    asked = []

    def score(store, kind, spec):
        asked.append((kind, spec.name, spec.label))
        return scoring.Scored(store.scoring(f"{kind}-{spec.label}"), 2, 12, 3, {"usd": 0.01})

    monkeypatch.setattr(scoring, "score", score)
    return asked


def test_score_names_plugins_as_a_matrix_does(scored, command):
    """Evaluators first, then judges, each with what was added, what it cost, and what has no verdict."""
    code, said, problems = command(
        "score", "mine", "--judge", "{name: gold, label: g}", "--evaluator", "health", "--evaluator", "fake"
    )
    assert code == 0
    assert scored == [("evaluator", "health", "health"), ("evaluator", "fake", "fake"), ("judge", "gold", "g")]
    assert "judge g: 2 cells, 12 comparisons in both orders" in said
    assert "usd: 0.01" in said
    assert "3 comparisons have no valid verdict" in problems
    assert said.rstrip().endswith("mine/report/index.html")


@pytest.mark.parametrize(
    ("words", "told"),
    [([], "nothing to score by"), (["--judge", "glod"], "gold"), (["--judge", "{name: gold, epsilon: -1}"], "epsilon")],
)
def test_score_of_nothing_or_a_wrong_plugin_is_an_error(words, told, scored, command):
    """Before anything is scored."""
    code, _, problems = command("score", "mine", *words)
    assert code == 2
    assert told in problems
    assert scored == []


def test_compare_prints_changes_and_json(matrix, command, monkeypatch):
    """Each changed verdict with its reasons; nothing changed is said too."""
    from dataclasses import dataclass

    @dataclass
    class Changed:
        a: str = "dpo"

        def told(self):
            return ("films", "dpo against base", "WIN +0.1", "LOSS -0.1", "because")

    command("run", matrix, "--only", "algorithm=good")
    monkeypatch.setattr(reporting, "read_results", lambda store, mixed: store)
    monkeypatch.setattr(reporting, "compare", lambda before, after: ([Changed()], ["packages.torch 1 → 2"]))
    code, said, _ = command("compare", "mine", "mine")
    assert code == 0
    assert "differs: packages.torch 1 → 2" in said
    assert "dpo against base" in said
    assert "because" in said
    assert json.loads(command("compare", "mine", "mine", "--json")[1])["changes"] == [{"a": "dpo"}]
    monkeypatch.setattr(reporting, "compare", lambda before, after: ([], []))
    assert "No verdict changed." in command("compare", "mine", "mine")[1]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4])
def test_gate_exits_with_its_code(code, matrix, command, monkeypatch):
    """And says why, also as JSON."""
    from types import SimpleNamespace

    gate = importlib.import_module("bakeoff.reports.gate")
    made = SimpleNamespace(code=gate.Code(code), findings=[(gate.Code(code), "dpo: less")])
    command("run", matrix, "--only", "algorithm=good")
    monkeypatch.setattr(reporting, "read_results", lambda store, mixed: store)
    monkeypatch.setattr(reporting, "gate", lambda results, against, margin, metric: made)
    ended, said, _ = command("gate", "mine", "--margin", "0.1")
    assert ended == code
    assert f"gate: {gate.Code(code).name.lower().replace('_', ' ')}" in said
    assert "dpo: less" in said
    assert json.loads(command("gate", "mine", "--json")[1])["code"] == code


def test_gate_that_cannot_read_or_breaks_is_an_infrastructure_failure(matrix, command, monkeypatch):
    """A build must not pass because a run was not found, nor fail as a regression because the gate broke."""
    code, _, problems = command("gate", "nowhere")
    assert code == 3
    assert "nowhere" in problems
    command("run", matrix, "--only", "algorithm=good")
    monkeypatch.setattr(reporting, "gate", lambda *arguments, **options: {}["no such key"])
    code, _, problems = command("gate", "mine")
    assert code == 3
    assert "KeyError" in problems
