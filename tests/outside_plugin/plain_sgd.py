"""Plain SGD on demonstrations: maximum likelihood, one row a step, no momentum."""

import math

from pydantic import Field

from bakeoff.contracts import Algorithm, PluginSettings, TrainContext
from bakeoff.seeds import in_turn


class PlainSGD(Algorithm):
    """A baseline for optimizers: what SFT does, with the simplest of them."""

    title = "Plain SGD on demonstrations"
    consumes = frozenset({"demonstrations"})

    class Settings(PluginSettings):
        learning_rate: float = Field(default=0.1, gt=0)
        """Step size at the start; falls with the share of the budget spent. Typical: 0.01 to 1."""

    def train(self, context: TrainContext) -> None:
        import torch

        rows = context.demonstrations
        weights = context.roles.parameters("policy")
        optimizer = torch.optim.SGD(weights, lr=self.settings.learning_rate)
        for step in context.steps(optimizer):  # a checkpoint holds what is handed over
            (index,) = in_turn(context.seed, "rows", step, 1, len(rows))
            row = rows[index]
            inputs = {name: torch.tensor([row[name]], device=weights[0].device) for name in ("input_ids", "labels")}
            loss = context.policy(**inputs).loss
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = self.settings.learning_rate * context.learning_rate_scale()
            optimizer.step()
            optimizer.zero_grad()
            context.log({"loss": loss.item()})
