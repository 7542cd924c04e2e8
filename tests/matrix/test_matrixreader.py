"""Every mistake in a matrix file is told at its line; paths are the file's."""

import pytest

from bakeoff import matrix
from bakeoff.errors import MatrixError


def test_every_problem_is_told_with_its_line(write, base, problems):
    """Three mistakes in one file are three lines, each with file, line, place, and the nearest valid name."""
    text = base.replace("learning_rate: 1e-4", "learning_rat: 1e-4, group: 1").replace("seeds: 2", "seed: 2")
    told = problems(write(text))
    assert told.startswith("4 problems in mine.yaml:")
    assert "mine.yaml:6: algorithms[1].learning_rat: unknown setting 'learning_rat' of grpo. " in told
    assert "Did you mean 'learning_rate'? It has: group, learning_rate." in told
    assert "mine.yaml:6: algorithms[1].group: input should be greater than or equal to 2, got 1." in told
    assert "mine.yaml:7: seed: unknown key 'seed' of a matrix file. Did you mean 'seeds'?" in told
    assert "mine.yaml:1: seeds: is missing" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("[easy]", "[hard]"), "mine.yaml:2: tasks[0]: no task is called 'hard'."),
        (("[easy]", "easy"), "mine.yaml:2: tasks: is 'easy', but has to be a list"),
        (("steps: 3", "version: 2"), "mine.yaml:3: budgets[0]: budget 'short' limits nothing."),
        (("steps: 3", "steps: -3"), "mine.yaml:3: budgets[0].steps: input should be greater than or equal to 1"),
        (("{hub: org/Tiny-1.5B}", "org/Tiny"), "mine.yaml:1: models[0]: 'org/Tiny' has no source"),
        (("org/Tiny-1.5B", "org/x, package: y"), "mine.yaml:1: models[0]: hub and package are given"),
        (("hub: org/Tiny-1.5B", "folder: nowhere"), "mine.yaml:1: models[0].folder: 'nowhere' does not exist"),
        (("org/Tiny-1.5B", "org/x, precision: nf5"), "mine.yaml:1: models[0].precision: input should be 'fp32'"),
        (("seeds: 2", "seeds: [1, 1]"), "mine.yaml:7: seeds: is [1, 1], but has to be"),
        (("seeds: 2", "seeds: true"), "mine.yaml:7: seeds: is True"),
        (("- sft", "- {label: sft}"), "mine.yaml:5: algorithms[0]: is {'label': 'sft'}, but has to be the name"),
        (("- sft", "- sft\n  - sft"), "mine.yaml:6: algorithms[1]: a second entry is called 'sft'"),
        (("- sft", "- sft\n  - {name: sft, label: s}"), "is the same as algorithms[0] in everything but its label"),
        (("seeds: 2", "seeds: 2\nwarm_start: sft"), "mine.yaml:8: warm_start: is 'sft', but has to be"),
        (("seeds: 2", "seeds: 2\nlora: {r: 0}"), "mine.yaml:8: lora.r: input should be greater than or equal to 1"),
        (("seeds: 2", "seeds: 2\nexclude: [{algorithm: gpro}]"), "mine.yaml:8: exclude[0].algorithm: no algorithm"),
        (("seeds: 2", "seeds: 2\nexclude: [{algo: sft}]"), "'algo' is no axis. Did you mean 'algorithm'?"),
        (("seeds: 2", "seeds: 2\nseeds: 3"), "mine.yaml:8: seeds: stands twice, first in line 7."),
        (("tasks: [easy]", "tasks:\n\t- easy"), "mine.yaml:3: not valid YAML: found character '\\t'"),
        (("tasks: [easy]", "tasks: [easy"), "mine.yaml:3: not valid YAML"),
        (("tasks: [easy]", "tasks: !!python/name:os.system"), "mine.yaml:2: not valid YAML: could not determine"),
        (("seeds: 2", "seeds: 2\nname: ../mine"), "mine.yaml:8: name: is '../mine', but names a folder"),
        (("seeds: 2", "on: 2"), "mine.yaml:7: on: unknown key 'on' of a matrix file."),
        (("seeds: 2", "seeds: 2\nname: my run"), "mine.yaml:8: name: is 'my run', but names a folder"),
        (("seeds: 2", "seeds: 2\ntimeout_s: 0"), "mine.yaml:8: timeout_s: input should be greater than 0, got 0"),
        (("seeds: 2", "seeds: 2\ncheckpoint_s: -1"), "mine.yaml:8: checkpoint_s: input should be greater than or"),
        (("[easy]", "&loop [*loop]"), "mine.yaml:2: not valid YAML: an alias holds itself"),
        (("seeds: 2", "seeds: !!int two"), "mine.yaml:7: not valid YAML: 'two' is no int."),
        (("seeds: 2", "seeds: !!timestamp two"), "mine.yaml:7: not valid YAML: 'two' is no timestamp."),
        (("seeds: 2", "seeds: !!bool two"), "mine.yaml:7: not valid YAML: 'two' is no bool."),
        (("seeds: 2", f"seeds: {'[' * 3000}"), "not valid YAML: nested too deeply."),
        (("seeds: 2", "seeds: 2\nname: a\0b"), "mine.yaml:8: not valid YAML: special characters are not allowed"),
        (("seeds: 2", "seeds: 20240101"), "mine.yaml:7: seeds: is 20240101, but has to be how many there are, 1000"),
        (("{hub: org/Tiny-1.5B}", "{hubb: org/x}"), "such as {hub: org/name}. Did you mean 'hub'?"),
        (("org/Tiny-1.5B", "org/x, precision: nf5"), "got 'nf5'. Did you mean 'nf4'?"),
        (("steps: 3", "flops: .inf"), "mine.yaml:3: budgets[0].flops: input should be a finite number, got inf"),
        (("steps: 3}", "steps: 3}, {name: short, steps: 4}"), "Give one of them another `name`."),
        (("[{name: short, steps: 3}]", "[[3]]"), "mine.yaml:3: budgets[0]: is [3], but has to be a mapping"),
        (("seeds: 2", "seeds: 2\nexclude: 0"), "mine.yaml:8: exclude: is 0, but has to be a list"),
        (("seeds: 2", "seeds: 2\nexclude: [{task: []}]"), "mine.yaml:8: exclude[0].task: is empty, so the rule would"),
        (
            ("seeds: 2", "seeds: 2\nwarm_start: {algoritm: sft, budget: smoke}"),
            "or a list of these. Did you mean 'algorithm'?",
        ),
        (
            ("seeds: 2", "seeds: 2\nwarm_start: {algorithm: idle, budget: smoke}"),
            "mine.yaml:8: warm_start.algorithm: idle does not train, so a warm start of it changes nothing. Take it",
        ),
        (
            (
                "seeds: 2",
                "seeds: 2\nwarm_start:\n- {algorithm: sft, budget: smoke}\n- {algorithm: judging, budget: smoke}",
            ),
            "mine.yaml:10: warm_start[1].algorithm: judging trains the reward model and not the policy, so",
        ),
        (
            ("- sft", "- sft\n  - broken"),
            "mine.yaml:6: algorithms[1]: the settings of algorithm 'broken' raised KeyError: 'rows'. Mend or uninstall",
        ),
        (
            ("- sft", "- {name: broken, rows: 1, scale: 0}"),
            "mine.yaml:5: algorithms[0]: the settings of algorithm 'broken' raised ZeroDivisionError: division by zero",
        ),
        (
            ("seeds: 2", "seeds: 2\nanalysis: {primary_metric: rewards}"),
            "analysis.primary_metric: no evaluator of the matrix measures 'rewards'. Did you mean 'reward'?",
        ),
        (
            ("seeds: 2", "seeds: 2\npreparation: {reward_model: {lss: hinge}}"),
            "mine.yaml:8: preparation.reward_model.lss: unknown key 'lss' of reward_model. Did you mean 'loss'?",
        ),
    ],
)
def test_problem_messages(write, change, told, base, problems):
    """Each mistake is told at its line, in words that say what is wrong."""
    assert told in problems(write(base.replace(*change)))


def test_a_key_without_a_value_is_a_key_that_is_not_there(write, base):
    """``judge:`` alone is the default judge, as ``evaluators:`` is the default ones; a later scoring may decide."""
    spec = matrix.load(write(f"{base}judge:\nevaluators:\nanalysis: {{primary_metric: win_rate@other}}\n")).spec
    assert spec.judge.name == matrix.JUDGE
    assert tuple(evaluator.name for evaluator in spec.evaluators) == matrix.EVALUATORS


@pytest.mark.parametrize("text", ["", "- sft\n", "models"])
def test_not_a_matrix_at_all(write, text, problems):
    """An empty file, a list and a word are refused with what a matrix file is."""
    assert "a matrix file is a mapping" in problems(write(text))


def test_not_text(tmp_path, problems):
    """A binary file is refused by name instead of with a decoding traceback."""
    (tmp_path / "model.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "model.yaml: not UTF-8 text" in problems(tmp_path / "model.yaml")


def test_a_wrong_stage_is_told_at_its_place(write):
    """The second stage lacks its budget."""
    with pytest.raises(MatrixError, match=r"warm_start\[1\]: is 'sft', but has to be"):
        matrix.load(write(), ["warm_start=[{algorithm: sft, budget: smoke}, sft]"])


def test_paths_start_at_the_file(write, tmp_path, monkeypatch, base):
    """A relative path in the file starts at the file's folder; one in an override at the current folder."""
    (tmp_path / "rows.jsonl").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "test.jsonl").write_text("{}")
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = base.replace("[easy]", "[{name: rows, train: rows.jsonl, source: org/data}]")
    path = write(text.replace("hub: org/Tiny-1.5B", "folder: ./tiny"))
    spec = matrix.load(path, ["tasks.rows.test=test.jsonl"]).spec
    assert spec.tasks[0].settings["train"] == str(tmp_path / "rows.jsonl")
    assert spec.tasks[0].settings["test"] == str(tmp_path / "elsewhere" / "test.jsonl")
    assert spec.tasks[0].settings["source"] == "org/data"
    assert spec.models[0].folder == tmp_path / "tiny"
    assert spec.models[0].label == "tiny"


def test_missing_file_is_told_with_its_line(write, tmp_path, base, problems):
    """A data file that is not there is found before anything runs."""
    told = problems(write(base.replace("[easy]", "[{name: rows, train: rows.jsonl}]")))
    assert f"mine.yaml:2: tasks[0].train: 'rows.jsonl' does not exist; it was looked for as {tmp_path}" in told


def test_check_across_settings(write, base, problems):
    """What a plugin's own check of several settings says is told at the plugin's line."""
    told = problems(write(base.replace("[easy]", "[{name: rows, train: mine.yaml, source: none}]")))
    assert told == "mine.yaml:2: tasks[0]: rows: the source has no rows."
