"""A task that a toy model learns in seconds: write as many letters "e" as you can."""

from bakeoff.contracts import Metric, Task, TaskData, TaskSettings

STARTS = ["the film", "we were", "a bad", "never", "three", "sweet", "there was", "good"]


class Letters(Task):
    """The reward is the share of "e" in the completion; ``short`` gives rewards that are all equal."""

    title = "The letter e"
    reward_metric = gold_metric = Metric("share_of_e", "share", "higher", "letters e over characters", 0.0, 1.0)

    class Settings(TaskSettings):
        max_new_tokens: int = 8
        constant: bool = False

    def load(self):
        rows = [{"id": f"{n}", "prompt": f"{start} {n} "} for n in range(6) for start in STARTS]
        rows = [{**row, "id": f"{number}"} for number, row in enumerate(rows)]
        provides = frozenset({"prompts", "reward"})
        return TaskData(rows[:32], rows[32:], provides, "letters-1", "CC0", "made here")

    def reward(self, rows, completions):
        if self.settings.constant:
            return [0.5 for _ in completions]
        return [text.count("e") / max(1, len(text)) for text in completions]

    gold = reward
