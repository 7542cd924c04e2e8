"""The chain-sum task: its form, its split, its reward."""

import pytest
from bakeoff.benchmarks.arithmetic import Arithmetic, ArithmeticSettings
from pydantic import ValidationError

from bakeoff.errors import DataError


def questions(rows):
    return {row["prompt"] for row in rows}


def test_prompts_are_raw_questions_with_exact_answers():
    """A row reads "Question: 67 + 75 =" and is continued with the sum, which Python agrees with."""
    data = Arithmetic().load()
    assert (len(data.train), len(data.test)) == (512, 128)
    for row in [*data.train, *data.test]:
        left, sign, right = row["prompt"].removeprefix("Question: ").removesuffix(" =\nAnswer:").split()
        total = int(left) + int(right) if sign == "+" else int(left) - int(right)
        assert row["completion"] == f" {total}"
        assert row["answer"] == str(total)
        assert max(len(left), len(right)) <= 2


def test_a_test_question_is_a_test_question_at_every_size_and_seed():
    """No choice of sizes or seed lets a question of one test split into another training split."""
    small = Arithmetic(ArithmeticSettings(train_size=64, test_size=40)).load()
    other = Arithmetic(ArithmeticSettings(train_size=800, test_size=100, data_seed=1)).load()
    for train in (small.train, other.train):
        for test in (small.test, other.test):
            assert not questions(train) & questions(test)
    assert questions(small.test) != questions(other.test)


def test_loading_is_deterministic():
    """The same settings give the same rows and fingerprint; other rows another fingerprint."""
    settings = ArithmeticSettings(train_size=20, test_size=5)
    assert Arithmetic(settings).load() == Arithmetic(settings).load()
    other = Arithmetic(ArithmeticSettings(train_size=20, test_size=5, data_seed=7)).load()
    assert other.fingerprint != Arithmetic(settings).load().fingerprint


def test_reward_reads_the_first_line_only():
    """Right is right however the number is written; free text, another number or a later line is wrong."""
    task = Arithmetic()
    completions = [" 142", "142\nQuestion: 1 + 1 =", "\n+142.0 ", " 14", "the answer is 142", "", "0\n142", "sNaN"]
    rows = [{"id": "x", "prompt": "", "answer": "142"}] * len(completions)
    assert task.reward(rows, completions) == [1, 1, 1, 0, 0, 0, 0, 0]
    assert task.gold(rows, completions) == task.reward(rows, completions)


def test_best_constant_answer_scores_what_it_says():
    """The reference is the score that this constant gets from the task's own reward."""
    task = Arithmetic()
    data = task.load()
    ((name, score),) = data.references.items()
    answer = name.removeprefix("best constant answer '").removesuffix("'")
    gold = task.gold(data.test, [answer] * len(data.test))
    assert sum(gold) / len(gold) == score > 1 / len(data.test)


def test_terms_and_digits_are_settings():
    """Three terms of three digits are asked for and given."""
    settings = ArithmeticSettings(
        min_terms=3, max_terms=3, min_digits=3, max_digits=3, train_size=10, test_size=3, max_new_tokens=8
    )
    for row in Arithmetic(settings).load().train:
        parts = row["prompt"].removeprefix("Question: ").removesuffix(" =\nAnswer:").split()
        assert [len(part) for part in parts] == [3, 1, 3, 1, 3]


def test_too_few_distinct_questions_is_an_error():
    """One-digit sums are soon used up: the error says how many there are."""
    with pytest.raises(DataError, match="only 166 training and 34 test questions") as caught:
        Arithmetic(ArithmeticSettings(max_digits=1)).load()
    assert "train_size" in caught.value.fix


def test_an_empty_range_is_an_error():
    """Settings that ask for at least three and at most two terms are refused when they are read."""
    with pytest.raises(ValidationError, match="min_terms"):
        ArithmeticSettings(min_terms=3, max_terms=2)
