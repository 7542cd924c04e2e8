"""YAML as people write it, and overrides of what stands in it."""

import pytest
import yaml

from bakeoff import matrix
from bakeoff.matrixfile import parse


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "1E-4", ".0001"])
def test_numbers_are_read_as_people_write_them(write, text, base):
    """1e-4 is a number, although YAML 1.1 calls it a string."""
    spec = matrix.load(write(base.replace("1e-4", text))).spec
    assert spec.algorithms[1].settings["learning_rate"] == 1e-4


def test_words_are_not_booleans(write, base):
    """A label called no stays a word, although YAML 1.1 calls it False."""
    spec = matrix.load(write(base.replace("  - sft", "  - {name: sft, label: no}"))).spec
    assert spec.algorithms[0].label == "no"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("6.0e12", 6e12), ("-3", -3), ("010", "010"), ("1:30", "1:30"), ("off", "off"), ("", None)],
)
def test_plain_scalars(text, value):
    """Scalars are YAML 1.2's: no octal, no sexagesimal, no booleans but true and false."""
    read = parse(text, "text")
    assert read == value
    assert type(read) is type(value)


def test_anchors_and_merges_work(write, base):
    """Shared settings can be written once, and a key of one's own wins over a merged one."""
    text = base.replace(
        "  - {name: grpo, learning_rate: 1e-4}",
        "  - &shared {name: grpo, group: 4}\n  - {<<: *shared, label: big, group: 16}",
    )
    assert [spec.settings.get("group") for spec in matrix.load(write(text)).spec.algorithms] == [None, 4, 16]


def test_yaml_is_plain(write):
    """The written matrix holds no Python tags, so that any YAML reader takes it."""
    assert yaml.safe_load(matrix.to_yaml(matrix.load(write()).spec))["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("algorithms.grpo.learning_rate=3e-4", lambda spec: spec.algorithms[1].settings["learning_rate"] == 3e-4),
        ("algorithms.1.group=4", lambda spec: spec.algorithms[1].settings["group"] == 4),
        ("algorithms.sft.label=tuned", lambda spec: spec.algorithms[0].label == "tuned"),
        ("evaluation.prompts=16", lambda spec: spec.evaluation.prompts == 16),
        ("seeds=[0,1]", lambda spec: spec.seeds == (0, 1)),
        ("models.Tiny-1.5B.precision=bf16", lambda spec: spec.models[0].precision == "bf16"),
        ("budgets.short.steps=9", lambda spec: spec.budgets[0].limits() == {"steps": 9}),
        ("evaluators=[kl]", lambda spec: [evaluator.name for evaluator in spec.evaluators] == ["kl"]),
        ("algorithms.sft.label=a=b", lambda spec: spec.algorithms[0].label == "a=b"),
    ],
)
def test_override(write, override, value):
    """--set reaches any value: by key, by an entry's label, by index, in sections that the file lacks."""
    assert value(matrix.load(write(), [override]).spec)


def test_override_by_a_label_with_dots(write, base):
    """Of two labels that fit, the longer is meant: v1.5 is not entry v1 with a part called 5."""
    path = write(
        base.replace("  - sft", "  - {name: sft, label: v1}").replace("{name: grpo", "{label: v1.5, name: grpo")
    )
    assert matrix.load(path, ["algorithms.v1.5.group=4"]).spec.algorithms[1].settings["group"] == 4


def test_override_of_a_stock_budget(write, base):
    """One limit of a stock budget can be set; the others stay."""
    path = write(base.replace("{name: short, steps: 3}", "smoke"))
    limits = matrix.load(path, ["budgets.smoke.seconds=5"]).spec.budgets[0].limits()
    assert limits == {"steps": 2, "seconds": 5.0}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("algorithms.gpro.group=4", "--set algorithms.gpro.group=4: no entry of algorithms is called 'gpro'"),
        ("algorithms.grpo.grop=4", "--set algorithms.grpo.grop=4: algorithms[1].grop: unknown setting 'grop'"),
        ("evaluation.prompts=none", "--set evaluation.prompts=none: evaluation.prompts: input should be a valid"),
        ("evaluation.prompts", "not of the form a.b=value"),
        ("a..b=1", "not of the form a.b=value"),
        ("seeds=[0", "the value is not valid YAML"),
        ("seeds.x=1", "seeds is 2, which has no parts to set"),
        ("algorithms.stf.beta=1", "no entry of algorithms is called 'stf'. Did you mean 'sft'?"),
        ("evalution.prompts=3", "--set evalution.prompts=3: evalution: unknown key 'evalution' of a matrix file."),
        ("evaluation.prompts.x=3", "--set evaluation.prompts.x=3: evaluation.prompts: input should be a valid integer"),
        ("lora.r=!!int abc", "--set lora.r=!!int abc: the value is not valid YAML: 'abc' is no int."),
    ],
)
def test_override_errors_name_the_override(write, override, told, problems):
    """What is wrong with an override is told with the override, not with a line of the file."""
    assert told in problems(write(), override)
