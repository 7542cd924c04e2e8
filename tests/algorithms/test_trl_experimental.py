"""ORPO and CPO, which TRL may take away: they train on the cell's tokens, and where they are gone, say so."""

import sys

import pytest
from bakeoff.algorithms.trl_experimental import labelled
from datasets import Dataset

from bakeoff import catalogue, pricing, registry
from bakeoff.errors import Incompatible

EXPERIMENTAL = ["orpo", "cpo"]


@pytest.fixture
def without(monkeypatch, tmp_path):
    """A TRL whose ``experimental`` folder is empty."""
    (tmp_path / "trl" / "experimental").mkdir(parents=True)
    (tmp_path / "trl" / "__init__.py").write_text("")
    (tmp_path / "trl" / "experimental" / "__init__.py").write_text("")
    for name in [name for name in sys.modules if name == "trl" or name.startswith("trl.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name == "trl" or name.startswith("trl.")]:
        del sys.modules[name]


def test_labels_are_of_completions_alone():
    """Prompt 1, 2; chosen 3, 0; rejected 4."""
    assert labelled({"prompt_ids": [1, 2], "chosen_ids": [3, 0], "rejected_ids": [4]}) == {
        "chosen_input_ids": [1, 2, 3, 0],
        "chosen_attention_mask": [1, 1, 1, 1],
        "chosen_labels": [-100, -100, 3, 0],
        "rejected_input_ids": [1, 2, 4],
        "rejected_attention_mask": [1, 1, 1],
        "rejected_labels": [-100, -100, 4],
    }


@pytest.mark.parametrize("name", EXPERIMENTAL)
def test_it_trains_on_the_cells_tokens(name, make_roles, make_context):
    """TRL would tokenise the text again and append EOS to a completion that was cut off."""
    context = make_context(make_roles())
    rows = [{**row, "chosen_ids": row["chosen_ids"][:-1]} for row in context.preferences]
    context.preferences = Dataset.from_list(rows)
    seen = []
    embedding = context.roles.causal_lm.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda module, args: seen.extend(args[0].tolist()))
    plugin = registry.load("algorithm", name)
    plugin(plugin.Settings(batch=8)).train(context)
    width = len(seen[0])
    whole = [row["prompt_ids"] + row[kind] for row in rows for kind in ("chosen_ids", "rejected_ids")]
    assert sorted(seen) == sorted(ids + [0] * (width - len(ids)) for ids in whole)


@pytest.mark.parametrize("name", EXPERIMENTAL)
def test_where_trl_lacks_it_the_plan_says_so(name, without, toy_cell):
    """Its cells are incompatible, with what to do; the listing says it; others are as they were."""
    reason = pricing.incompatible(toy_cell(name))
    assert f"{name} cannot run here: the installed TRL has no {name.upper()}Trainer" in reason
    assert "install trl==1.16.0" in reason
    assert "has no" in catalogue.describe("algorithm", name).facts["cannot run here"]
    assert pricing.incompatible(toy_cell("dpo")) is None
    assert not any("cannot run here" in catalogue.describe("algorithm", other).facts for other in ("dpo", "grpo"))


@pytest.mark.parametrize("name", EXPERIMENTAL)
def test_a_trainer_that_cannot_be_imported_is_no_import_error(name, without, make_roles, make_context):
    """A cell that was planned with another TRL ends as incompatible."""
    plugin = registry.load("algorithm", name)
    with pytest.raises(Incompatible, match="has no"):
        plugin().train(make_context(make_roles()))


def test_a_setting_without_effect_is_refused():
    """CPO's label noise, margin and shape of the reward are of some losses only."""
    cpo = registry.load("algorithm", "cpo")
    with pytest.raises(ValueError, match="label_noise has no effect on hinge"):
        cpo.Settings(loss="hinge", label_noise=0.1)
    with pytest.raises(ValueError, match="gamma has no effect on sigmoid"):
        cpo.Settings(gamma=1.0)
    with pytest.raises(ValueError, match="alpha needs means over tokens, and sigmoid has sums"):
        cpo.Settings(alpha=0.25)
