"""What is in the id of a cell, and what is not."""

import pytest

from bakeoff import identity, matrix
from bakeoff.spec import IDENTITY, TRANSPORT, CellSpec, MatrixSpec


def test_every_field_is_classified():
    """A new field of a cell must be put in IDENTITY or in TRANSPORT, never in both."""
    assert set(CellSpec.model_fields) == IDENTITY | TRANSPORT
    assert not IDENTITY & TRANSPORT


def test_every_shared_field_reaches_the_cell():
    """What a matrix says for all cells is in each cell: no field of CellSpec is filled by its default alone."""
    axes = {"model", "task", "budget", "algorithm", "seed"}
    assert set(CellSpec.model_fields) - axes <= set(MatrixSpec.model_fields)


def test_golden_id(write, monkeypatch, ids):
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
def test_what_determines_the_result_is_in_the_id(write, override, ids):
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
def test_what_does_not_is_not(write, override, ids):
    """Labels, defaults written out, order of evaluators and transport change no id: nothing is trained again."""
    path = write()
    assert ids(path, override) == ids(path)


def test_a_warm_start_may_have_several_stages(write, ids):
    """Their order and each one's algorithm and budget are in the id; a single stage may stand without a list."""
    path = write()
    one, two = "{algorithm: sft, budget: smoke}", "{algorithm: grpo, budget: {name: w, steps: 3}}"
    alone, listed = ids(path, f"warm_start={one}"), ids(path, f"warm_start=[{one}]")
    assert alone == listed
    chains = [listed, ids(path, f"warm_start=[{one}, {two}]"), ids(path, f"warm_start=[{two}, {one}]")]
    assert len({chain[-1] for chain in chains}) == 3


def test_defaults_left_out_are_filled_in(write):
    """A cell that was made by hand, without the defaults, is the same cell."""
    cell = matrix.load(write()).cells()[2]
    bare = cell.model_copy(
        update={"algorithm": cell.algorithm.model_copy(update={"settings": {"learning_rate": 1e-4}})}
    )
    assert matrix.cell_id(bare, fingerprints={}) == matrix.cell_id(cell, fingerprints={})


def test_sources_and_versions_are_in_the_id(write, plugins, monkeypatch, ids):
    """The plugins' source, this package's version, the schema's and the fingerprints all count."""
    path = write()
    base = ids(path)
    assert len(set(base)) == 4
    assert ids(path, fingerprints={"model": "other weights"}) != base
    plugins.hashes[plugins.known["algorithm", "grpo"]] = "edited"
    assert [new == old for new, old in zip(ids(path), base, strict=True)] == [True, True, False, False]
    plugins.hashes.clear()
    monkeypatch.setattr(identity.bakeoff, "__version__", "9.9.9")
    assert not set(ids(path)) & set(base)


def test_data_counts_by_content_and_model_by_fingerprint(write, tmp_path, base, ids):
    """Moving the folder of a matrix changes no id; editing a data file does."""
    text = base.replace("[easy]", "[{name: rows, train: rows.jsonl}]").replace("hub: org/Tiny-1.5B", "folder: tiny")
    found = []
    for folder, rows in (("here", "{}"), ("there", "{}"), ("edited", "{ }")):
        (tmp_path / folder / "tiny").mkdir(parents=True)
        (tmp_path / folder / "rows.jsonl").write_text(rows)
        found.append(ids(write(text, f"{folder}/mine.yaml"), fingerprints={"model": "abc"}))
    here, there, edited = found
    assert here == there
    assert not set(here) & set(edited)


def test_a_folder_of_data_counts_by_its_files(write, tmp_path, base, ids):
    """Moving it changes no id; another name, a further file or an edit does."""
    text = base.replace("[easy]", "[{name: rows, train: texts}]")
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
