"""What a file becomes: its short forms written out, its cells, what is selected of them."""

import pytest

from bakeoff import matrix
from bakeoff.errors import MatrixError
from bakeoff.spec import CellSpec


def labels(cells: list[CellSpec]) -> list[tuple[str, int]]:
    return [(cell.algorithm.label, cell.seed) for cell in cells]


def test_short_forms_are_written_out(write):
    """Names, counts and defaults of a short file become a full spec, settings completed by the plugin."""
    spec = matrix.load(write()).spec
    assert spec.name == "mine"
    assert spec.models[0].label == "Tiny-1.5B"
    assert spec.algorithms[1].settings == {"learning_rate": 1e-4, "group": 8}
    assert spec.seeds == (0, 1)
    assert [evaluator.name for evaluator in spec.evaluators] == ["reward", "win_rate", "kl", "health"]
    assert spec.judge.name == "gold"


def test_a_preset_completes_the_settings(write, base):
    """``grpo:big`` is grpo with the preset's settings; what the file says wins; tables call it by the preset."""
    text = base.replace(
        "{name: grpo, learning_rate: 1e-4}", '"grpo:big"\n  - {name: "grpo:big", label: less, group: 32}'
    )
    spec = matrix.load(write(text)).spec
    assert [(each.name, each.preset, each.label) for each in spec.algorithms[1:]] == [
        ("grpo", "big", "big"),
        ("grpo", "big", "less"),
    ]
    assert [each.settings["group"] for each in spec.algorithms[1:]] == [64, 32]
    assert matrix.load(write(matrix.to_yaml(spec), "again.yaml")).spec == spec


def test_a_preset_is_its_settings(write, base, problems):
    """A preset and the same settings written out are one cell, with one id."""
    text = base.replace("{name: grpo, learning_rate: 1e-4}", '"grpo:big"\n  - {name: grpo, group: 64}')
    assert "same as algorithms[1]" in problems(write(text))


def test_an_unknown_preset_is_an_error(write, base, problems):
    """The nearest preset is told, and which there are."""
    told = problems(write(base.replace("{name: grpo, learning_rate: 1e-4}", '"grpo:bog"')))
    assert "no preset 'bog'" in told
    assert "grpo:big" in told


def test_stock_budget_by_name(write, base, problems):
    """A budget's bare name is looked up among the stock budgets."""
    spec = matrix.load(write(base.replace("{name: short, steps: 3}", "smoke"))).spec
    assert spec.budgets[0].limits() == {"steps": 2}
    assert "Did you mean 'smoke'?" in problems(write(base.replace("{name: short, steps: 3}", "smok")))


def test_every_stock_budget_is_a_budget(write, base):
    """Each of budgets.yaml limits something."""
    text = base.replace("[{name: short, steps: 3}]", str(list(matrix.budgets())))
    assert all(budget.limits() for budget in matrix.load(write(text)).spec.budgets)


def test_round_trip(write, base):
    """A spec written by to_yaml is read back equal, warm start, rules and awkward labels included."""
    text = base.replace("  - sft\n", "  - {name: sft, label: '1e-4'}\n") + (
        "warm_start: {algorithm: sft, budget: smoke}\n"
        "exclude: [{algorithm: grpo, seed: 1}]\n"
        "lora: {targets: [q_proj, v_proj]}\n"
        "timeout_s: 60\n"
    )
    spec = matrix.load(write(text)).spec
    assert matrix.load(write(matrix.to_yaml(spec), "again.yaml")).spec == spec


def test_stock_name_or_path():
    """A name is a stock matrix; an unknown one is told with those there are."""
    assert "smoke" in matrix.stock()
    with pytest.raises(MatrixError, match="Did you mean 'smoke'"):
        matrix.load("smoek")
    with pytest.raises(MatrixError, match=r"nowhere/smoke\.yaml: cannot be read"):
        matrix.load("nowhere/smoke.yaml")


def test_cells_are_the_product(write):
    """Two algorithms by two seeds are four cells, in the file's order."""
    assert labels(matrix.load(write()).cells()) == [("sft", 0), ("sft", 1), ("grpo", 0), ("grpo", 1)]


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("include: [{algorithm: sft}]", [("sft", 0), ("sft", 1)]),
        ("exclude: [{algorithm: [sft], seed: 1}]", [("sft", 0), ("grpo", 0), ("grpo", 1)]),
        ("include: [{seed: 0}]\nexclude: [{algorithm: sft}]", [("grpo", 0)]),
    ],
)
def test_include_and_exclude(write, rules, left, base):
    """A rule holds when all its parts do; a list stands for any of its labels."""
    assert labels(matrix.load(write(base + rules)).cells()) == left


@pytest.mark.parametrize(
    ("only", "left"),
    [
        (["algorithm=sft,seed=1"], [("sft", 1)]),
        (["algorithm=sft,seed=1", "algorithm=grpo"], [("sft", 1), ("grpo", 0), ("grpo", 1)]),
        (["algorithm=sft,algorithm=grpo,seed=0"], [("sft", 0), ("grpo", 0)]),
    ],
)
def test_only(write, only, left):
    """The parts of one --only must all hold; of several --only, one."""
    assert labels(matrix.load(write(), only=only).cells()) == left


@pytest.mark.parametrize(
    ("only", "told"),
    [
        ("algorithm=stf", "no algorithm is called 'stf'. The matrix has: sft, grpo"),
        ("algorithm=gpro", "no algorithm is called 'gpro'. The matrix has: sft, grpo"),
        ("algo=sft", "'algo' is no axis"),
        ("sft", "'sft' is not of the form axis=label"),
    ],
)
def test_only_errors(write, only, told):
    """A selection that can match nothing is a mistake, not an empty run."""
    with pytest.raises(MatrixError, match=f"--only {only}: {told}"):
        matrix.load(write(), only=[only])


def test_no_cell_left(write, base):
    """Rules that leave out everything are an error."""
    with pytest.raises(MatrixError, match="no cell is left"):
        matrix.load(write(base + "exclude: [{task: easy}]")).cells()


OWN = """
models: [{hub: org/tiny}]
tasks: [easy]
budgets: [{name: small, steps: 5}]
algorithms:
  - sft
  - {name: sft, label: few, preparation: {reward: model, reward_model: {comparisons: 10}}}
seeds: 1
preparation: {prompts: 32, reward_model: {loss: hinge, label_noise: 0.2}}
"""


def test_an_entrys_preparation_goes_over_the_sections(write):
    """Key by key, into the reward model's settings too; the other rows and the algorithm's settings stay."""
    plain, own = matrix.load(write(OWN)).cells()
    assert plain.preparation.reward == "task"
    assert plain.preparation.reward_model.comparisons is None
    assert (own.preparation.prompts, own.preparation.reward) == (32, "model")
    assert own.preparation.reward_model.comparisons == 10
    assert own.preparation.reward_model.loss == "hinge"
    assert own.preparation.reward_model.label_noise == 0.2
    assert plain.algorithm.settings == own.algorithm.settings
    assert matrix.cell_id(plain, fingerprints={}) != matrix.cell_id(own, fingerprints={})


def test_an_entrys_preparation_is_written_back(write):
    """A spec with one is read back equal."""
    spec = matrix.load(write(OWN)).spec
    assert matrix.load(write(matrix.to_yaml(spec), "again.yaml")).spec == spec


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("reward_model: {comparisons: 0}", r"algorithms\[1\]\.preparation\.reward_model\.comparisons.*greater than"),
        ("reward_model: {losss: hinge}", r"unknown key 'losss'"),
        ("rewards: model", r"unknown key 'rewards'.*Did you mean 'reward'"),
    ],
)
def test_an_entrys_preparation_is_checked(wrong, told, write):
    """A wrong key or value is told at its own line."""
    text = OWN.replace("reward: model, reward_model: {comparisons: 10}", wrong)
    with pytest.raises(MatrixError, match=rf"mine\.yaml:7.*{told}"):
        matrix.load(write(text))
