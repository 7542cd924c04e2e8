"""What a run declares before training: hashed, replaced while nothing is known, amended after."""

import pytest

from bakeoff import matrix as matrices
from bakeoff.declaration import amendments, declare, declared, digest, summary


@pytest.fixture
def spec():
    """The smoke matrix, with an analysis section of its own."""

    def load(*changes):
        return matrices.load("smoke", changes).spec

    return load


def test_a_declaration_holds_the_question_and_the_design(spec):
    """Metric, margin and family as the matrix says; seeds, prompts and the checkpoint with them."""
    assert declared(spec("seeds=3", "analysis.margin=0.05")) == {
        "primary_metric": "gold_reward",
        "margin": 0.05,
        "family": "against-base",
        "seeds": [0, 1, 2],
        "prompts": 8,
        "samples": 1,
        "checkpoint": "last",
    }


def test_rules_are_declared_where_there_are_any(spec):
    """What is left out is said before the run; to leave out less, or more, once there are results is an amendment."""
    rule = "exclude=[{algorithm: ppo, seed: [1, 2]}]"
    assert declared(spec("seeds=3", rule))["exclude"] == [{"algorithm": "ppo", "seed": [1, 2]}]
    assert "less what its rules leave out" in summary(declared(spec("seeds=3", rule)) | {"hash": ""})
    first = declare(spec("seeds=3", rule), [], results=0)
    (line,) = amendments(declare(spec("seeds=3"), first, results=4))
    assert line.endswith("exclude from 1 [{'algorithm': 'ppo', 'seed': [1, 2]}] to None")
    (line,) = amendments(declare(spec("seeds=3", rule), declare(spec("seeds=3"), [], results=0), results=4))
    assert line.endswith("exclude from None to 1 [{'algorithm': 'ppo', 'seed': [1, 2]}]")


def test_the_hash_is_of_what_is_declared_and_not_of_when(spec):
    """Two runs that declare the same have one hash; another margin has another."""
    first, again = declare(spec(), [], results=0), declare(spec(), [], results=0)
    assert first[0]["hash"] == again[0]["hash"] == digest(first[0])
    assert declare(spec("analysis.margin=0.5"), [], results=0)[0]["hash"] != first[0]["hash"]


def test_before_any_result_a_change_replaces(spec):
    """Who has seen nothing may change everything: one declaration is left, and nothing is amended."""
    first = declare(spec(), [], results=0)
    second = declare(spec("analysis.margin=0.5"), first, results=0)
    assert [one["margin"] for one in second] == [0.5]
    assert amendments(second) == []


def test_after_a_result_a_change_is_an_amendment(spec):
    """What was declared first stays, and the change is told with how much there was to look at."""
    first = declare(spec("seeds=3"), [], results=0)
    second = declare(spec("seeds=5", "analysis.primary_metric=kl"), first, results=7)
    assert second[0] == first[0]
    (line,) = amendments(second)
    assert line.endswith(
        "with 7 cells to look at: primary_metric from gold_reward to kl, seeds from 3 [0, 1, 2] to 5 [0, 1, 2, 3, 4]"
    )


def test_the_same_declaration_again_is_none(spec):
    """Running again changes nothing, results or not."""
    first = declare(spec(), [], results=0)
    assert declare(spec(), first, results=9) == first


def test_a_declaration_that_was_edited_by_hand_is_found_out(spec):
    """The hash no longer fits the fields."""
    (only,) = declare(spec(), [], results=0)
    (line,) = amendments([only | {"margin": 9.0}])
    assert "changed by hand" in line


def test_a_summary_is_one_line(spec):
    """What ``bakeoff run`` prints before the first cell."""
    (only,) = declare(spec("seeds=3"), [], results=0)
    assert summary(only) == (
        f"Declared {only['hash']}: gold_reward decides, against-base, margin 0.02, 3 seeds × 8 prompts, last checkpoint"
    )
    assert "margin 2% of the range" in summary(only | {"margin": None})
