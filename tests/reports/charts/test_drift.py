"""The KL of tokens drawn: its numbers, and the sentence about who leaves the start early."""

import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts import drift


@pytest.fixture(scope="module")
def chart(results):
    return drift.profile(sections(results)[0])


def test_every_position_of_every_algorithm_is_in_its_data(chart):
    """24 tokens of the four that train; dpo's first holds 4.5 of its 7.5 nats."""
    assert chart.data["algorithm"].value_counts().to_dict() == dict.fromkeys(("sft", "dpo", "ppo", "grpo-lr3"), 24)
    first = chart.data[(chart.data["algorithm"] == "dpo") & (chart.data["token"] == "1")]
    assert first["kl"].item() == pytest.approx(4.5)


def test_its_sentence_names_the_earliest_and_the_latest(chart):
    """dpo is the first of those that spend half at token 1; sft takes twelve."""
    assert chart.alt == "dpo has spent half of its KL by token 1 of at most 24, the earliest; sft by token 12."
