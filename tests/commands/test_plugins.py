"""What the command line says of plugins."""

import json

import pytest

from bakeoff import registry


def test_list_shows_presets_and_can_be_narrowed(command):
    """A line a plugin, one a preset, of one kind when asked."""
    code, said, _ = command("plugins", "list", "algorithm")
    assert code == 0
    names = [line.split()[1] for line in said.splitlines()[1:] if line.startswith("algorithm")]
    assert names == registry.names("algorithm")
    presets = [name for name in registry.names("algorithm") if registry.load("algorithm", name).presets]
    for name in presets:
        assert all(f"{name}:{preset}" in said for preset in registry.load("algorithm", name).presets)
    assert "judge" not in said


def test_list_writes_a_page_of_a_kind(command):
    """Which is a file of the documentation; a page of all kinds, or of JSON, there is not."""
    code, said, _ = command("plugins", "list", "algorithm", "--markdown")
    assert code == 0
    assert said.startswith("# Algorithms\n")
    assert "| `dpo:ipo` | Identity Preference Optimization | `loss: ipo` |" in said
    assert command("plugins", "list", "judge", "--markdown")[1].startswith("# Judges\n")
    for words in (("--markdown",), ("algorithm", "--markdown", "--json")):
        code, _, problems = command("plugins", "list", *words)
        assert code == 2
        assert "--markdown is a page of one kind" in problems


def test_show_tells_paper_settings_bounds_and_what_it_takes(command):
    """What one needs to use a plugin, and to cite it."""
    code, said, _ = command("plugins", "show", "algorithm", "dpo")
    assert code == 0
    assert "Rafailov et al. 2023, arXiv:2305.18290" in said
    assert "trains on: preferences" in said
    (line,) = [line for line in said.splitlines() if line.startswith("beta")]
    assert "float > 0" in line
    assert "0.1" in line
    assert "Strength of the pull to the reference" in line
    assert "needs: logprobs, samples" in command("plugins", "show", "evaluator", "kl")[1]
    assert "gold reward: " in command("plugins", "show", "task", "sentiment")[1]


def test_show_finds_the_kind_and_spells_out_long_choices(command):
    """A kind is asked for where two share the name; sixteen losses stand in the meaning, not in a column."""
    code, said, _ = command("plugins", "show", "dpo")
    assert code == 0
    (line,) = [line for line in said.splitlines() if line.startswith("loss")]
    assert line.split()[1:3] == ["one", "of"]
    assert "One of: sigmoid | hinge | ipo" in line
    assert line.endswith("| sft | {name: float}.")
    assert "reverse_kl | forward_kl | js_divergence" in said
    code, _, problems = command("plugins", "show", "gold:anything")
    assert code == 2
    assert "has no preset" in problems
    assert "algorithm and evaluator" not in problems


def test_show_of_a_preset_tells_its_settings(command):
    """In the place of the defaults."""
    name, preset = next(
        (name, preset) for name in registry.names("algorithm") for preset in registry.load("algorithm", name).presets
    )
    code, said, _ = command("plugins", "show", "algorithm", f"{name}:{preset}")
    assert code == 0
    assert f"{name}:{preset}: {registry.load('algorithm', name).presets[preset].title}" in said
    shown = json.loads(command("plugins", "show", "algorithm", f"{name}:{preset}", "--json")[1])
    assert [each["name"] for each in shown["presets"]] == [preset]
    code, _, problems = command("plugins", "show", "algorithm", f"{name}:nothing")
    assert code == 2
    assert "has no preset 'nothing'" in problems


def test_check_tells_and_writes_what_it_found(command, tmp_path):
    """A line a promise, a report to paste, exit code 0."""
    report = tmp_path / "check.md"
    code, said, _ = command("plugins", "check", "gold", "--set", "epsilon=0.1", "--report", str(report))
    assert code == 0
    assert "kept    sides       swapping the sides turned 8 of 8 verdicts" in said
    assert "0 broken of 5 promises" in said
    text = report.read_text()
    assert text.startswith("### Conformance of judge `gold`: passed")
    assert "settings epsilon=0.1" in text


def test_check_of_what_breaks_a_promise_fails(command, fake_lab):
    """Exit code 1; the promise, what happened and how to mend it."""
    code, said, _ = command("plugins", "check", "evaluator", "fake")
    assert code == 1
    assert "BROKEN" in said
    assert "promised: It gives one row a (prompt, sample, metric)" in said
    assert "to mend:" in said
    assert "not" not in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "nothing is called 'nothing'"),
        (["judges"], "no judge is named.\nName one of fake, gold"),
        (["dpp"], "Did you mean algorithm ppo or algorithm dpo?"),
        (["fake"], "algorithm and task and evaluator and judge are called 'fake'"),
        (["judge", "gold", "--set", "epsilon"], "has no value"),
        (["judge", "gold", "--set", "epsilon=-1"], "epsilon: Input should be greater than or equal to 0"),
        (["judge", "gold", "--set", "epsilom=1"], "epsilom: Extra inputs are not permitted"),
        (["judge", "gold", "--only", "side"], "Did you mean 'sides'?"),
        (["judge", "gould"], "Did you mean 'gold' (The higher gold reward wins)?"),
    ],
)
def test_check_says_what_is_wrong_with_the_command(words, told, command, fake_lab):
    """Exit code 2, and what there is."""
    code, _, problems = command("plugins", "check", *words)
    assert code == 2
    assert told in problems


def test_new_says_what_to_do_next(command, tmp_path):
    """The files on stdout, the next commands beside them."""
    code, said, next_steps = command("new", "algorithm", "my-method", "--to", str(tmp_path))
    assert code == 0
    assert str(tmp_path / "bakeoff-my-method" / "src" / "bakeoff_my_method.py") in said.splitlines()
    assert "bakeoff plugins check algorithm my-method" in next_steps
    assert "--flavour loop" in next_steps
    assert command("new", "algorithm", "my-method", "--to", str(tmp_path))[0] == 2
