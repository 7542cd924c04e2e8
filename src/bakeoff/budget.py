"""The meter: what an algorithm made the model compute, and when its budget is spent.

The meter reads the model, not the algorithm. Hooks on the shared base count the tokens and the
floating-point operations of every pass, by role, so a plugin is measured without its help. What a
trainer reports of itself (transformers' ``total_flos``, TRL's ``num_tokens``) means something
else in every trainer and is not used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bakeoff.errors import BudgetError
from bakeoff.flops import PassCost
from bakeoff.spec import BudgetSpec, ScheduleSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bakeoff.roles import RoleModel

IDLE_STEPS = 50
"""Optimizer steps after which a budget must have been touched."""


@dataclass
class Spent:
    """What one role has cost. Tokens are attended positions; FLOPs include the padding that was computed."""

    tokens_trained: int = 0
    """Positions that went forward and backward."""
    tokens_generated: int = 0
    """Tokens sampled: one a row and decoding pass."""
    tokens_scored: int = 0
    """Positions that went forward only, with no cache: reference, reward and old log-probabilities."""
    flops: float = 0.0


@dataclass
class Meter:
    """Counts, and compares with the budget's limits. ``seconds`` runs between ``start`` and ``stop``.

    ``trained`` is the role whose trained tokens a budget limits.
    """

    limits: Mapping[str, float]
    trained: str = "policy"
    roles: dict[str, Spent] = field(default_factory=dict)
    steps: int = 0
    prompts: int = 0
    _seconds: float = 0.0
    _since: float | None = None
    _off: int = 0

    def __post_init__(self) -> None:
        if not self.limits:
            raise BudgetError("a budget without a limit never ends.", fix="Set steps, flops, seconds or another limit.")

    # -------------------------------------------------------------------------------------- counting

    def attach(self, roles: RoleModel) -> Callable[[], None]:
        """Hook the model; returns what takes the hooks off again."""
        cost = PassCost.of(roles)
        self._cost = cost
        former, roles.meter = roles.meter, self
        handles = [
            roles.backbone.register_forward_pre_hook(self._before_pass, with_kwargs=True),
            roles.backbone.register_forward_hook(self._make_after_pass(roles, cost), with_kwargs=True),
            # peft calls the causal LM's forward() itself, past its hooks; its own module is called.
            roles.model.base_model.register_forward_pre_hook(self._make_fused_head(roles), with_kwargs=True),
            roles.lm_head.register_forward_hook(self._make_after_head(roles)),
        ]

        def detach() -> None:
            roles.meter = former
            for handle in handles:
                handle.remove()

        return detach

    @contextmanager
    def counting(self, roles: RoleModel) -> Iterator[None]:
        """Within the block, what the model computes is counted and the clock runs."""
        detach = self.attach(roles)
        self.start()
        try:
            yield
        finally:
            self.stop()
            detach()

    def _of(self, role: str) -> Spent:
        return self.roles.setdefault(role, Spent())

    def _before_pass(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        self._cached = cache.get_seq_length() if cache is not None else 0

    def _make_after_pass(self, roles: RoleModel, cost: PassCost) -> Callable[..., None]:
        import torch

        def after(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if self._off:
                return
            hidden: Tensor = output[0]
            rows, length = hidden.shape[:2]
            positions = rows * length
            mask = kwargs.get("attention_mask")
            tokens = int(mask.sum()) if mask is not None and mask.shape == (rows, length) else positions
            pairs = rows * length * (length + self._cached)
            trains = torch.is_grad_enabled() and hidden.requires_grad
            recomputed = roles.recomputes_activations and module.training
            mixed: list[tuple[str, bool]] = [(role, roles.has(role)) for role in roles.mixed]
            together = mixed or [running(roles)]
            tokens, positions, pairs = (count // len(together) for count in (tokens, positions, pairs))
            for role, adapter in together:
                spent = self._of(role)
                spent.flops += cost.forward(positions, pairs, adapter=adapter)
                if kwargs.get("past_key_values") is not None:
                    spent.tokens_generated += positions // length
                elif trains:
                    reached, trained = _reach(roles) if role == "policy" and not recomputed else (1.0, 1.0)
                    flops = cost.backward(
                        positions, pairs, adapter=adapter, recomputed=recomputed, reached=reached, trained=trained
                    )
                    hidden.register_hook(self._make_after_backward(spent, tokens, flops))
                else:
                    spent.tokens_scored += tokens

        return after

    def _make_after_backward(self, spent: Spent, tokens: int, flops: float) -> Callable[[Tensor], None]:
        def after(gradient: Tensor) -> None:
            if not self._off:
                spent.tokens_trained += tokens
                spent.flops += flops

        return after

    def _make_after_head(self, roles: RoleModel) -> Callable[..., None]:
        def after(module: nn.Module, args: Any, output: Tensor) -> None:
            rows, role = output.shape[:-1].numel(), running(roles)[0]
            self.count_head(role, rows)
            if output.requires_grad:
                output.register_hook(lambda gradient: self.count_head(role, rows))

        return after

    def _make_fused_head(self, roles: RoleModel) -> Callable[..., None]:
        import torch

        def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            # TRL's fused head multiplies by the head's weight without calling it. On a CPU it scores
            # every position, elsewhere those with a label; its backward recomputes the logits.
            labels = kwargs.get("labels")
            if kwargs.get("fused_lm_head") and labels is not None:
                rows = labels[:, 1:].numel() if labels.device.type == "cpu" else int((labels[:, 1:] != -100).sum())
                self.count_head(running(roles)[0], rows * (3 if torch.is_grad_enabled() else 1))

        return before

    def count_head(self, role: str, rows: int) -> None:
        """Count ``rows`` products with the head's weight that no hook sees."""
        if not self._off:
            self._of(role).flops += rows * self._cost.head

    def count_step(self, steps: int = 1) -> None:
        """Count optimizer steps of the policy. Raises ``BudgetError`` when they spend none of what is limited."""
        self.steps += steps
        if self.steps >= IDLE_STEPS and self.fraction == 0.0:
            raise BudgetError(
                f"{self.steps} optimizer steps spent nothing of {', '.join(self.limits)}: training would never end.",
                fix="Limit something that the algorithm spends, too: steps or flops.",
            )

    def count_prompts(self, prompts: int) -> None:
        """Count training prompts seen, repeats included."""
        self.prompts += prompts

    # ----------------------------------------------------------------------------------------- clock

    def start(self) -> None:
        """Let the clock run; it may run already."""
        self.stop()
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
        self._since = None

    @contextmanager
    def off(self) -> Iterator[None]:
        """Off the clock and uncounted: evaluation and probes are not the algorithm's."""
        running = self._since is not None
        self.stop()
        self._off += 1
        try:
            yield
        finally:
            self._off -= 1
            if running and not self._off:
                self.start()

    @property
    def seconds(self) -> float:
        return self._seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)

    # ---------------------------------------------------------------------------------------- budget

    def spent(self) -> dict[str, float]:
        """Totals in every currency. Trained tokens are the ``trained`` role's; the others are over all roles."""
        return {
            "steps": self.steps,
            "prompts": self.prompts,
            "tokens_trained": self._of(self.trained).tokens_trained,
            "tokens_generated": sum(role.tokens_generated for role in self.roles.values()),
            "tokens_scored": sum(role.tokens_scored for role in self.roles.values()),
            "flops": sum(role.flops for role in self.roles.values()),
            "seconds": self.seconds,
        }

    @property
    def fraction(self) -> float:
        """The share of the budget spent: of the limit that is nearest to its end. Can pass 1 by a step."""
        spent = self.spent()
        return max(spent[name] / limit for name, limit in self.limits.items())

    @property
    def is_spent(self) -> bool:
        return self.fraction >= 1.0

    def overshoot(self) -> dict[str, float]:
        """By how much each limit was passed, as a share of it; at most one step's worth."""
        spent = self.spent()
        return {name: max(0.0, spent[name] / limit - 1.0) for name, limit in self.limits.items()}

    # ----------------------------------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "roles": {name: asdict(role) for name, role in self.roles.items()},
            "steps": self.steps,
            "prompts": self.prompts,
            "seconds": self.seconds,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's ``state``."""
        self.roles = {name: Spent(**role) for name, role in state["roles"].items()}
        self.steps, self.prompts = state["steps"], state["prompts"]
        self._seconds = state["seconds"]


def meter_for(budget: BudgetSpec) -> Meter:
    return Meter(budget.limits())


def running(roles: RoleModel) -> tuple[str, bool]:
    """The role that runs now and whether an adapter does, from the LoRA layers: right also when a trainer switches."""
    if roles.mixed:
        return roles.mixed[0], roles.has(roles.mixed[0])
    from peft.tuners.lora import LoraLayer

    from bakeoff.roles import ADAPTERS, TRL_REFERENCE

    layer = next(module for module in roles.backbone.modules() if isinstance(module, LoraLayer))
    if layer.disable_adapters:
        return "reference", False
    adapter = layer.active_adapters[0]
    roles_by_adapter = {name: str(role) for role, name in ADAPTERS.items()} | {TRL_REFERENCE: "reference"}
    return roles_by_adapter.get(adapter, adapter), True


def _reach(roles: RoleModel) -> tuple[float, float]:
    """The shares of the layers that the policy's gradients pass, down to the lowest that learns, and that learn."""
    return 1.0 - min(roles.trained_layers) / roles.layers, len(roles.trained_layers) / roles.layers


def learning_rate_scale(fraction: float, schedule: ScheduleSpec) -> float:
    """Factor in [0, 1] on the peak learning rate when ``fraction`` of the budget is spent.

    The first step of a run with a warm-up has rate 0, as in transformers' schedules.
    """
    if fraction < schedule.warmup:
        return fraction / schedule.warmup
    left = min(1.0, max(0.0, (1.0 - fraction) / (1.0 - schedule.warmup)))
    match schedule.shape:
        case "linear":
            return left
        case "cosine":
            return 0.5 * (1.0 - math.cos(math.pi * left))
        case "constant":
            return 1.0
        case "wsd":
            return min(1.0, max(0.0, (1.0 - fraction) / schedule.decay))
