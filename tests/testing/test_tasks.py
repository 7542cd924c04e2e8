"""The promises of a task: an honest one keeps all of them, and for each there is one that does not."""

import dataclasses
import random
from types import MappingProxyType

import pytest

from bakeoff.contracts import Metric, Task, TaskData
from bakeoff.testing import check_task, examine
from bakeoff.testing.playthings import ToyTask

SHARE = Metric("share", "share", "higher", "share of e", 0.0, 1.0)


class Honest(Task):
    """Ten prompts and a reward."""

    title = "Honest"
    reward_metric = gold_metric = SHARE

    def load(self):
        return TaskData(self.rows(0, 8), self.rows(8, 10), frozenset({"prompts", "reward"}), "f", "CC0", "made here")

    def rows(self, first, last):
        return [{"id": str(number), "prompt": f"say {number}"} for number in range(first, last)]

    def reward(self, rows, completions):
        return [text.count("e") / max(1, len(text)) for text in completions]

    gold = reward


class HoldsNothingOut(Honest):
    """Has no test rows."""

    def load(self):
        return TaskData(self.rows(0, 8), [], frozenset({"prompts", "reward"}), "f", "CC0", "made here")


class GivesAList(Honest):
    """Rows, and nothing about them."""

    def load(self):
        return self.rows(0, 8)


class Says(Honest):
    """Honest but for what it says of its data."""

    says = MappingProxyType({})

    def load(self):
        return dataclasses.replace(super().load(), **self.says)


class HasNoLicence(Says):
    """Nobody may use it."""

    says = MappingProxyType({"licence": " "})


class TellsOfBadRowsInPassing(Says):
    """A remark where a file, a line and a reason should be."""

    says = MappingProxyType({"bad_rows": ("line 7 is odd",)})


class ProvidesDreams(Says):
    """A kind of row that nobody trains on."""

    says = MappingProxyType({"provides": frozenset({"prompts", "reward", "dreams"})})


class DrawsAnew(Honest):
    """Shuffles by nobody's seed."""

    def rows(self, first, last):
        return random.SystemRandom().sample(super().rows(first, last), last - first)


class RepeatsIds(Honest):
    """Counts each split from one."""

    def rows(self, first, last):
        return [{"id": str(number - first), "prompt": f"say {number}"} for number in range(first, last)]


class AsksNothing(Honest):
    """Has a row without a prompt."""

    def rows(self, first, last):
        return [{**row, "prompt": "" if row["id"] == "3" else row["prompt"]} for row in super().rows(first, last)]


class PromisesPairs(Honest):
    """Says that it has preferences."""

    def load(self):
        provides = frozenset({"prompts", "reward", "preferences"})
        return TaskData(self.rows(0, 8), self.rows(8, 10), provides, "f", "CC0", "made here")


class HasARewardWithoutAMetric(Honest):
    """Says that it has a reward and not in what unit."""

    reward_metric = None


class MixesTypes(Honest):
    """A column that is a number here and a text there."""

    def rows(self, first, last):
        return [{**row, "answer": 1 if row["id"] < "5" else "one"} for row in super().rows(first, last)]


class Leaks(Honest):
    """Asks the same in both splits."""

    def rows(self, first, last):
        return [{**row, "prompt": "say e"} for row in super().rows(first, last)]


class Exceeds(Honest):
    """Rewards letters, not their share."""

    def reward(self, rows, completions):
        return [float(text.count("e")) for text in completions]


class Chokes(Honest):
    """Divides by a length that may be 0."""

    def gold(self, rows, completions):
        return [text.count("e") / len(text) for text in completions]


class SkipsTheEmpty(Honest):
    """Rewards only what has text."""

    def reward(self, rows, completions):
        return [reward for reward, text in zip(super().gold(rows, completions), completions, strict=True) if text]


class Abstains(Honest):
    """Says nothing of an empty text."""

    def reward(self, rows, completions):
        rewards = super().gold(rows, completions)
        return [reward if text else None for reward, text in zip(rewards, completions, strict=True)]


class Compares(Honest):
    """Rewards relative to the batch."""

    def reward(self, rows, completions):
        most = max(text.count("e") for text in completions) or 1
        return [text.count("e") / most for text in completions]


class Remembers(Honest):
    """Writes on the rows."""

    def reward(self, rows, completions):
        for row in rows:
            row["seen"] = True
        return super().gold(rows, completions)


@pytest.mark.parametrize("task", [Honest, ToyTask])
def test_an_honest_task_keeps_every_promise(task):
    """All apply to it."""
    assert {finding.verdict for finding in check_task(task).findings} == {"kept"}


def test_a_reward_that_is_not_there_is_not_checked():
    """A task of pairs has none."""
    verdicts = {finding.name: finding.verdict for finding in check_task(ToyTask, rewarded=False).findings}
    assert verdicts["reward"] == verdicts["gold"] == "does not apply"


@pytest.mark.parametrize(
    ("task", "broken", "told"),
    [
        (GivesAList, "loads", "load() gave a list"),
        (HoldsNothingOut, "loads", "no test rows"),
        (HasNoLicence, "loads", "`licence` is empty"),
        (TellsOfBadRowsInPassing, "loads", "`bad_rows` holds 'line 7 is odd'"),
        (ProvidesDreams, "loads", "`provides` names ['dreams']"),
        (DrawsAnew, "repeatable", "other rows"),
        (RepeatsIds, "rows", "not unique"),
        (AsksNothing, "rows", "row '3' has no prompt"),
        (PromisesPairs, "rows", "row '0' has no chosen and rejected"),
        (HasARewardWithoutAMetric, "rows", "`reward_metric` is None"),
        (MixesTypes, "rows", "the rows are no table"),
        (Leaks, "split", "1 prompts are in both splits"),
        (Exceeds, "reward", "lies in [0.0, 1.0]"),
        (Chokes, "gold", "ZeroDivisionError"),
        (SkipsTheEmpty, "reward", "it gave 17 numbers for 18 completions"),
        (Abstains, "reward", "it gave None for a completion"),
        (Compares, "reward", "otherwise alone"),
        (Remembers, "reward", "changed the rows"),
    ],
)
def test_a_dishonest_task_breaks_its_promise(task, broken, told):
    """What happened and how to mend it are said."""
    (finding,) = examine("task", task, only=[broken]).broken
    assert finding.name == broken
    assert told in finding.found
    assert finding.fix


def test_a_task_that_depends_on_the_hash_seed_is_found_out(tmp_path, monkeypatch):
    """A set of texts has another order in each process; only another process shows it."""
    (tmp_path / "hashed_task.py").write_text(
        "from bakeoff.contracts import Task, TaskData\n"
        "class Hashed(Task):\n"
        "    '''Rows in the order of a set.'''\n"
        "    title = 'Hashed'\n"
        "    def load(self):\n"
        "        rows = [{'id': word, 'prompt': word} for word in {'one', 'two', 'three', 'four', 'five', 'six'}]\n"
        "        return TaskData(rows[:3], rows[3:], frozenset({'prompts'}), 'f', 'CC0', 'made here')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from hashed_task import Hashed

    (finding,) = examine("task", Hashed, only=["repeatable"]).broken
    assert "other hash seeds" in finding.found
