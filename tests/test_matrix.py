"""The matrix file: schema, overrides, selection, and the identity of a cell. Its plugins are made here."""

from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from pydantic import Field, model_validator

from bakeoff import identity, matrix, registry
from bakeoff.contracts import PluginSettings, Preset, TaskSettings
from bakeoff.errors import MatrixError, PluginError
from bakeoff.matrixfile import parse
from bakeoff.spec import IDENTITY, TRANSPORT, CellSpec, MatrixSpec


class Empty:
    """A plugin without settings."""

    Settings = PluginSettings


class GRPO:
    """An algorithm with two settings and a preset."""

    presets: ClassVar[dict[str, Preset]] = {"big": Preset("Big Groups", "Nobody 2026", {"group": 64})}

    class Settings(PluginSettings):
        learning_rate: float = Field(default=1e-3, gt=0)
        """Step size at the start."""
        group: int = Field(default=8, ge=2)


class Rows:
    """A task over files."""

    class Settings(TaskSettings):
        train: Path
        """Training rows."""
        test: Path | None = None
        source: Path | str | None = None

        @model_validator(mode="after")
        def _enough(self) -> "Rows.Settings":
            if self.source == "none":
                raise ValueError("the source has no rows")
            return self


class Plugins:
    """Stands in for the registry: the classes above by name, and a hash for each that a test may change."""

    known: ClassVar[dict[tuple[str, str], type]] = {
        ("algorithm", "sft"): Empty,
        ("algorithm", "grpo"): GRPO,
        ("task", "easy"): type("Easy", (), {"Settings": TaskSettings}),
        ("task", "rows"): Rows,
        ("judge", "gold"): Empty,
        **{("evaluator", name): Empty for name in matrix.EVALUATORS},
    }

    def __init__(self) -> None:
        self.hashes: dict[type, str] = {}

    def load(self, kind: str, name: str) -> type:
        if (kind, name) not in self.known:
            raise PluginError(f"no {kind} is called {name!r}.")
        return self.known[kind, name]

    def source_hash(self, plugin: type) -> str:
        return self.hashes.get(plugin, "source of " + plugin.__name__)


@pytest.fixture(autouse=True)
def plugins(monkeypatch):
    """The plugins above in place of the installed ones."""
    plugins = Plugins()
    monkeypatch.setattr(registry, "load", plugins.load)
    monkeypatch.setattr(registry, "source_hash", plugins.source_hash)
    return plugins


BASE = """\
models: [{hub: org/Tiny-1.5B}]
tasks: [easy]
budgets: [{name: short, steps: 3}]
algorithms:
  - sft
  - {name: grpo, learning_rate: 1e-4}
seeds: 2
"""


@pytest.fixture
def write(tmp_path):
    """Writes a matrix file and gives its path."""

    def write(text: str = BASE, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def problems(path: Path, *overrides: str) -> str:
    with pytest.raises(MatrixError) as caught:
        matrix.load(path, overrides)
    return str(caught.value)


def labels(cells: list[CellSpec]) -> list[tuple[str, int]]:
    return [(cell.algorithm.label, cell.seed) for cell in cells]


# ----------------------------------------------------------------------------------- reading


def test_short_forms_are_written_out(write):
    """Names, counts and defaults of a short file become a full spec, settings completed by the plugin."""
    spec = matrix.load(write()).spec
    assert spec.name == "mine"
    assert spec.models[0].label == "Tiny-1.5B"
    assert spec.algorithms[1].settings == {"learning_rate": 1e-4, "group": 8}
    assert spec.seeds == (0, 1)
    assert [evaluator.name for evaluator in spec.evaluators] == ["reward", "win_rate", "kl", "health"]
    assert spec.judge.name == "gold"


def test_a_preset_completes_the_settings(write):
    """``grpo:big`` is grpo with the preset's settings; what the file says wins; tables call it by the preset."""
    text = BASE.replace(
        "{name: grpo, learning_rate: 1e-4}", '"grpo:big"\n  - {name: "grpo:big", label: less, group: 32}'
    )
    spec = matrix.load(write(text)).spec
    assert [(each.name, each.preset, each.label) for each in spec.algorithms[1:]] == [
        ("grpo", "big", "big"),
        ("grpo", "big", "less"),
    ]
    assert [each.settings["group"] for each in spec.algorithms[1:]] == [64, 32]
    assert matrix.load(write(matrix.to_yaml(spec), "again.yaml")).spec == spec


def test_a_preset_is_its_settings(write):
    """A preset and the same settings written out are one cell, with one id."""
    text = BASE.replace("{name: grpo, learning_rate: 1e-4}", '"grpo:big"\n  - {name: grpo, group: 64}')
    assert "same as algorithms[1]" in problems(write(text))


def test_an_unknown_preset_is_an_error(write):
    """The nearest preset is told, and which there are."""
    told = problems(write(BASE.replace("{name: grpo, learning_rate: 1e-4}", '"grpo:bog"')))
    assert "no preset 'bog'" in told
    assert "grpo:big" in told


def test_stock_budget_by_name(write):
    """A budget's bare name is looked up among the stock budgets."""
    spec = matrix.load(write(BASE.replace("{name: short, steps: 3}", "smoke"))).spec
    assert spec.budgets[0].limits() == {"steps": 2}
    assert "Did you mean 'smoke'?" in problems(write(BASE.replace("{name: short, steps: 3}", "smok")))


def test_every_stock_budget_is_a_budget(write):
    """Each of budgets.yaml limits something."""
    text = BASE.replace("[{name: short, steps: 3}]", str(list(matrix.budgets())))
    assert all(budget.limits() for budget in matrix.load(write(text)).spec.budgets)


def test_round_trip(write):
    """A spec written by to_yaml is read back equal, warm start, rules and awkward labels included."""
    text = BASE.replace("  - sft\n", "  - {name: sft, label: '1e-4'}\n") + (
        "warm_start: {algorithm: sft, budget: smoke}\n"
        "exclude: [{algorithm: grpo, seed: 1}]\n"
        "lora: {targets: [q_proj, v_proj]}\n"
        "timeout_s: 60\n"
    )
    spec = matrix.load(write(text)).spec
    assert matrix.load(write(matrix.to_yaml(spec), "again.yaml")).spec == spec


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "1E-4", ".0001"])
def test_numbers_are_read_as_people_write_them(write, text):
    """1e-4 is a number, although YAML 1.1 calls it a string."""
    spec = matrix.load(write(BASE.replace("1e-4", text))).spec
    assert spec.algorithms[1].settings["learning_rate"] == 1e-4


def test_words_are_not_booleans(write):
    """A label called no stays a word, although YAML 1.1 calls it False."""
    spec = matrix.load(write(BASE.replace("  - sft", "  - {name: sft, label: no}"))).spec
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


def test_anchors_and_merges_work(write):
    """Shared settings can be written once, and a key of one's own wins over a merged one."""
    text = BASE.replace(
        "  - {name: grpo, learning_rate: 1e-4}",
        "  - &shared {name: grpo, group: 4}\n  - {<<: *shared, label: big, group: 16}",
    )
    assert [spec.settings.get("group") for spec in matrix.load(write(text)).spec.algorithms] == [None, 4, 16]


def test_stock_name_or_path():
    """A name is a stock matrix; an unknown one is told with those there are."""
    assert "smoke" in matrix.stock()
    with pytest.raises(MatrixError, match="Did you mean 'smoke'"):
        matrix.load("smoek")
    with pytest.raises(MatrixError, match=r"nowhere/smoke\.yaml: cannot be read"):
        matrix.load("nowhere/smoke.yaml")


# ------------------------------------------------------------------------------------ errors


def test_every_problem_is_told_with_its_line(write):
    """Three mistakes in one file are three lines, each with file, line, place, and the nearest valid name."""
    text = BASE.replace("learning_rate: 1e-4", "learning_rat: 1e-4, group: 1").replace("seeds: 2", "seed: 2")
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
    ],
)
def test_problem_messages(write, change, told):
    """Each mistake is told at its line, in words that say what is wrong."""
    assert told in problems(write(BASE.replace(*change)))


@pytest.mark.parametrize("text", ["", "- sft\n", "models"])
def test_not_a_matrix_at_all(write, text):
    """An empty file, a list and a word are refused with what a matrix file is."""
    assert "a matrix file is a mapping" in problems(write(text))


def test_not_text(tmp_path):
    """A binary file is refused by name instead of with a decoding traceback."""
    (tmp_path / "model.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "model.yaml: not UTF-8 text" in problems(tmp_path / "model.yaml")


# --------------------------------------------------------------------------------- overrides


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


def test_override_by_a_label_with_dots(write):
    """Of two labels that fit, the longer is meant: v1.5 is not entry v1 with a part called 5."""
    path = write(
        BASE.replace("  - sft", "  - {name: sft, label: v1}").replace("{name: grpo", "{label: v1.5, name: grpo")
    )
    assert matrix.load(path, ["algorithms.v1.5.group=4"]).spec.algorithms[1].settings["group"] == 4


def test_override_of_a_stock_budget(write):
    """One limit of a stock budget can be set; the others stay."""
    path = write(BASE.replace("{name: short, steps: 3}", "smoke"))
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
    ],
)
def test_override_errors_name_the_override(write, override, told):
    """What is wrong with an override is told with the override, not with a line of the file."""
    assert told in problems(write(), override)


# ------------------------------------------------------------------------------------- paths


def test_paths_start_at_the_file(write, tmp_path, monkeypatch):
    """A relative path in the file starts at the file's folder; one in an override at the current folder."""
    (tmp_path / "rows.jsonl").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "test.jsonl").write_text("{}")
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = BASE.replace("[easy]", "[{name: rows, train: rows.jsonl, source: org/data}]")
    path = write(text.replace("hub: org/Tiny-1.5B", "folder: ./tiny"))
    spec = matrix.load(path, ["tasks.rows.test=test.jsonl"]).spec
    assert spec.tasks[0].settings["train"] == str(tmp_path / "rows.jsonl")
    assert spec.tasks[0].settings["test"] == str(tmp_path / "elsewhere" / "test.jsonl")
    assert spec.tasks[0].settings["source"] == "org/data"
    assert spec.models[0].folder == tmp_path / "tiny"
    assert spec.models[0].label == "tiny"


def test_missing_file_is_told_with_its_line(write, tmp_path):
    """A data file that is not there is found before anything runs."""
    told = problems(write(BASE.replace("[easy]", "[{name: rows, train: rows.jsonl}]")))
    assert f"mine.yaml:2: tasks[0].train: 'rows.jsonl' does not exist; it was looked for as {tmp_path}" in told


def test_check_across_settings(write):
    """What a plugin's own check of several settings says is told at the plugin's line."""
    told = problems(write(BASE.replace("[easy]", "[{name: rows, train: mine.yaml, source: none}]")))
    assert told == "mine.yaml:2: tasks[0]: rows: the source has no rows."


# ------------------------------------------------------------------------------------- cells


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
def test_include_and_exclude(write, rules, left):
    """A rule holds when all its parts do; a list stands for any of its labels."""
    assert labels(matrix.load(write(BASE + rules)).cells()) == left


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
        ("algorithm=stf", "no algorithm is called 'stf'. Did you mean 'sft'?"),
        ("algo=sft", "'algo' is no axis"),
        ("sft", "'sft' is not of the form axis=label"),
    ],
)
def test_only_errors(write, only, told):
    """A selection that can match nothing is a mistake, not an empty run."""
    with pytest.raises(MatrixError, match=f"--only {only}: {told}"):
        matrix.load(write(), only=[only])


def test_no_cell_left(write):
    """Rules that leave out everything are an error."""
    with pytest.raises(MatrixError, match="no cell is left"):
        matrix.load(write(BASE + "exclude: [{task: easy}]")).cells()


# ---------------------------------------------------------------------------------- identity


def ids(path: Path, *overrides: str, fingerprints: dict[str, str] | None = None) -> list[str]:
    cells = matrix.load(path, overrides).cells()
    return [matrix.cell_id(cell, fingerprints=fingerprints or {}) for cell in cells]


def test_every_field_is_classified():
    """A new field of a cell must be put in IDENTITY or in TRANSPORT, never in both."""
    assert set(CellSpec.model_fields) == IDENTITY | TRANSPORT
    assert not IDENTITY & TRANSPORT


def test_every_shared_field_reaches_the_cell():
    """What a matrix says for all cells is in each cell: no field of CellSpec is filled by its default alone."""
    axes = {"model", "task", "budget", "algorithm", "seed"}
    assert set(CellSpec.model_fields) - axes <= set(MatrixSpec.model_fields)


def test_golden_id(write, monkeypatch):
    """An id never changes by accident: this one was computed when schema version 3 was fixed."""
    monkeypatch.setattr(identity.bakeoff, "__version__", "0.1.0")
    assert ids(write(), fingerprints={"model": "abc"})[2] == "f8e366959dc5266f"


@pytest.mark.parametrize(
    "override",
    [
        "algorithms.grpo.learning_rate=2e-4",
        "models.0.precision=bf16",
        "tasks.easy.max_new_tokens=8",
        "budgets.short.steps=4",
        "budgets.short.version=2",
        "seeds=[5, 6]",
        "lora.r=8",
        "evaluators=[kl]",
        "evaluation.prompts=8",
        "preparation.samples=8",
        "schedule.shape=cosine",
        "schedule={warmup: 0.1}",
        "warm_start={algorithm: sft, budget: smoke}",
    ],
)
def test_what_determines_the_result_is_in_the_id(write, override):
    """A change to any identity field gives another id."""
    path = write()
    assert ids(path, override)[-1] != ids(path)[-1]


@pytest.mark.parametrize(
    "override",
    [
        "algorithms.grpo.label=mine",
        "models.0.label=mine",
        "tasks.easy.label=mine",
        "budgets.0.name=mine",
        "algorithms.grpo.group=8",
        "algorithms.grpo.learning_rate=0.00010",
        "evaluators=[kl, health, win_rate, reward]",
        "name=other",
        "timeout_s=9",
        "checkpoint_s=9",
    ],
)
def test_what_does_not_is_not(write, override):
    """Labels, defaults written out, order of evaluators and transport change no id: nothing is trained again."""
    path = write()
    assert ids(path, override) == ids(path)


def test_a_warm_start_may_have_several_stages(write):
    """Their order and each one's algorithm and budget are in the id; a single stage may stand without a list."""
    path = write()
    one, two = "{algorithm: sft, budget: smoke}", "{algorithm: grpo, budget: {name: w, steps: 3}}"
    alone, listed = ids(path, f"warm_start={one}"), ids(path, f"warm_start=[{one}]")
    assert alone == listed
    chains = [listed, ids(path, f"warm_start=[{one}, {two}]"), ids(path, f"warm_start=[{two}, {one}]")]
    assert len({chain[-1] for chain in chains}) == 3


def test_a_wrong_stage_is_told_at_its_place(write):
    """The second stage lacks its budget."""
    with pytest.raises(MatrixError, match=r"warm_start\[1\]: is 'sft', but has to be"):
        matrix.load(write(), ["warm_start=[{algorithm: sft, budget: smoke}, sft]"])


def test_defaults_left_out_are_filled_in(write):
    """A cell that was made by hand, without the defaults, is the same cell."""
    cell = matrix.load(write()).cells()[2]
    bare = cell.model_copy(
        update={"algorithm": cell.algorithm.model_copy(update={"settings": {"learning_rate": 1e-4}})}
    )
    assert matrix.cell_id(bare, fingerprints={}) == matrix.cell_id(cell, fingerprints={})


def test_sources_and_versions_are_in_the_id(write, plugins, monkeypatch):
    """The plugins' source, this package's version, the schema's and the fingerprints all count."""
    path = write()
    base = ids(path)
    assert len(set(base)) == 4
    assert ids(path, fingerprints={"model": "other weights"}) != base
    plugins.hashes[GRPO] = "edited"
    assert [new == old for new, old in zip(ids(path), base, strict=True)] == [True, True, False, False]
    plugins.hashes.clear()
    monkeypatch.setattr(identity.bakeoff, "__version__", "9.9.9")
    assert not set(ids(path)) & set(base)


def test_data_counts_by_content_and_model_by_fingerprint(write, tmp_path):
    """Moving the folder of a matrix changes no id; editing a data file does."""
    text = BASE.replace("[easy]", "[{name: rows, train: rows.jsonl}]").replace("hub: org/Tiny-1.5B", "folder: tiny")
    found = []
    for folder, rows in (("here", "{}"), ("there", "{}"), ("edited", "{ }")):
        (tmp_path / folder / "tiny").mkdir(parents=True)
        (tmp_path / folder / "rows.jsonl").write_text(rows)
        found.append(ids(write(text, f"{folder}/mine.yaml"), fingerprints={"model": "abc"}))
    here, there, edited = found
    assert here == there
    assert not set(here) & set(edited)


def test_a_folder_of_data_counts_by_its_files(write, tmp_path):
    """Moving it changes no id; another name, a further file or an edit does."""
    text = BASE.replace("[easy]", "[{name: rows, train: texts}]")
    contents = {"here": {"a.txt": "x"}, "there": {"a.txt": "x"}, "named": {"b.txt": "x"}, "edited": {"a.txt": "y"}}
    contents["more"] = {"a.txt": "x", "sub/b.txt": "x"}
    found = {}
    for folder, files in contents.items():
        for name, content in files.items():
            path = tmp_path / folder / "texts" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        found[folder] = tuple(ids(write(text, f"{folder}/mine.yaml")))
    assert found["here"] == found["there"]
    assert len(set(found.values())) == 4


def test_yaml_is_plain(write):
    """The written matrix holds no Python tags, so that any YAML reader takes it."""
    assert yaml.safe_load(matrix.to_yaml(matrix.load(write()).spec))["seeds"] == [0, 1]


# ------------------------------------------------------------------- an entry's own preparation

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
