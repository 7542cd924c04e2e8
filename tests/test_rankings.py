"""Rankings: a task's pairs, samples with rewards, and labels that are wrong on purpose."""

import pandas as pd
import pytest

from bakeoff import rankings
from bakeoff.errors import Incompatible
from bakeoff.rows import Tokenised
from bakeoff.spec import RewardModelSettings


def pair(number):
    return {"id": f"{number}", "prompt_ids": [1], "completion_ids": [[2], [3]], "scores": [1.0, 0.0]}


def test_a_tasks_pairs():
    """The chosen completion scores 1, the rejected one 0; rows without a pair are no ranking."""
    rows = [
        Tokenised({"id": "a"}, "p", [5], {"chosen": [6, 0], "rejected": [7, 0]}),
        Tokenised({"id": "b"}, "p", [5], {"completion": [6, 0]}),
    ]
    assert rankings.of_pairs(rows) == [
        {"id": "a", "prompt_ids": [5], "completion_ids": [[6, 0], [7, 0]], "scores": [1.0, 0.0]}
    ]


def test_samples_of_a_prompt():
    """All completions of a prompt with their rewards, where best and worst are further apart than the gap."""
    frame = pd.DataFrame(
        {
            "prompt_id": ["a", "a", "b", "b"],
            "prompt_ids": [[1], [1], [2], [2]],
            "completion_ids": [[3], [4], [5], [6]],
            "reward": [0.2, 0.9, 0.5, 0.5],
        }
    )
    first = {"id": "a", "prompt_ids": [1], "completion_ids": [[3], [4]], "scores": [0.2, 0.9]}
    assert rankings.of_samples(frame) == [first]
    assert rankings.of_samples(frame, min_gap=0.8) == []


def test_turning_round():
    """The best gets the worst one's score, a pair is flipped, and twice is as before."""
    row = {"scores": [3.0, 1.0, 2.0]}
    assert rankings.turned(row)["scores"] == [1.0, 3.0, 2.0]
    assert rankings.turned(pair(0))["scores"] == [0.0, 1.0]
    assert rankings.turned(rankings.turned(row)) == row


def test_noise_is_the_same_in_a_shorter_list():
    """A quarter of a thousand labels is wrong, and the first hundred are the same ones whoever asks for them."""
    rows = [pair(number) for number in range(1000)]
    many = rankings.asked_for(rows, RewardModelSettings(label_noise=0.25))
    few = rankings.asked_for(rows, RewardModelSettings(label_noise=0.25, comparisons=100))
    assert len(few) == 100
    assert list(few) == list(many[:100])
    wrong = sum(row["scores"] == [0.0, 1.0] for row in many)
    assert 200 < wrong < 300
    assert rankings.asked_for(rows, RewardModelSettings()) == rows


def test_too_few():
    """The message says how many there are and what to raise."""
    with pytest.raises(Incompatible, match=r"(?s)5 comparisons, but there are 3.*preparation\.prompts"):
        rankings.asked_for([pair(number) for number in range(3)], RewardModelSettings(comparisons=5))
