"""The untrained row: the policy as every algorithm finds it. What the others are measured against."""

from bakeoff.contracts import Algorithm, TrainContext


class Base(Algorithm):
    """Leaves the policy alone and spends nothing."""

    title = "Untrained base"
    is_control = True
    trains = False

    def train(self, context: TrainContext) -> None:
        """Nothing to do."""
