"""The reward evaluator hands rows and completions to the right reward and keeps them apart."""

from bakeoff.evaluators.reward import Reward


def worth_times_length(rows, completions):
    return [row["worth"] * len(text) for row, text in zip(rows, completions, strict=True)]


def test_each_sample_is_scored_with_the_row_of_its_prompt(make_context, length_reward):
    """The rows' own order does not matter: prompt a is worth 1 a character, prompt b 10."""
    context = make_context(["x", "x", "xxx", "xx"], gold=worth_times_length, train_reward=length_reward)
    scores = Reward().score(context)
    assert list(scores.columns) == ["prompt_id", "sample", "metric", "value"]
    gold = scores[scores["metric"] == "gold_reward"]
    assert list(zip(gold["prompt_id"], gold["sample"], gold["value"], strict=True)) == [
        ("a", 0, 1.0),
        ("b", 0, 10.0),
        ("a", 1, 3.0),
        ("b", 1, 20.0),
    ]
    assert scores.loc[scores["metric"] == "train_reward", "value"].tolist() == [1.0, 1.0, 3.0, 2.0]


def test_a_reward_that_is_missing_is_left_out(make_context, length_reward):
    """A task without gold reward has no gold_reward rows; without any reward the frame is empty but well formed."""
    scores = Reward().score(make_context(["x", "y"], train_reward=length_reward))
    assert set(scores["metric"]) == {"train_reward"}
    empty = Reward().score(make_context(["x", "y"]))
    assert empty.empty
    assert empty.dtypes.to_dict() == scores.dtypes.to_dict()


def test_metrics_are_declared():
    """What the evaluator writes is what it declares."""
    assert [metric.name for metric in Reward.metrics] == ["gold_reward", "train_reward"]
