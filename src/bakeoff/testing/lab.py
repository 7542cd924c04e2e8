"""Where an algorithm is put to the test: whole cells on a toy model, in this process, watched from outside."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff.catalogue import PluginInfo
from bakeoff.contracts import Algorithm
from bakeoff.spec import (
    BudgetSpec,
    CellSpec,
    EvaluationSpec,
    LoraSpec,
    ModelSpec,
    PluginSpec,
    PreparationSpec,
    RewardModelSpec,
    WarmStartSpec,
)
from bakeoff.store import Store

from .promises import Broken, DoesNotApply
from .surroundings import toy_folder

if TYPE_CHECKING:
    from torch import Tensor

    from bakeoff.roles import Role
    from bakeoff.worker import CellRun

STEPS = 6
"""Optimizer steps of a cell. PPO's default takes four on a rollout; a resumed run must cross the border of one."""
LONGEST_S = 60.0
"""Seconds of training after which a cell is given up."""
RUNAWAY = 4.0
"""Multiple of the budget at which a cell is given up: an algorithm that ignores the budget may never end."""


class GivenUp(BaseException):
    """Ends a cell from outside, as a killed process would: no ``except Exception`` of a plugin stops it."""


@dataclass
class Trained:
    """What a watched cell left."""

    folder: Path
    start: dict[str, Tensor] = field(default_factory=dict)
    """What it trains, the policy's adapter or a reward model's, before training ..."""
    adapter: dict[str, Tensor] = field(default_factory=dict)
    """... after it ..."""
    left: dict[str, Tensor] = field(default_factory=dict)
    """... and when the cell had ended."""
    frozen: dict[str, str] = field(default_factory=dict)
    """A hash of what must not move (base, reference, reward) before training ..."""
    frozen_after: dict[str, str] = field(default_factory=dict)
    """... and after it."""
    fractions: list[float] = field(default_factory=list)
    """The share of the budget spent after each step that the meter was told of."""
    spent: float = 0.0
    """The share of the budget spent when training ended."""
    updates: int = 0
    """Steps of an optimizer that holds one of these weights, whether or not the meter was told."""
    gave_up: str = ""
    computed: float = 0.0
    """Floating-point operations of all matrix products while it trained, where they were counted."""

    @functools.cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The training log."""
        log = self.folder / "training.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def same_as(self, other: Trained) -> bool:
        """Whether both adapters are equal, bit for bit."""
        return equal(self.adapter, other.adapter)

    @property
    def steps(self) -> int:
        """Optimizer steps, seen or said: not everybody has a ``torch.optim.Optimizer``."""
        return max(self.updates, len(self.fractions))

    @property
    def moved(self) -> bool:
        """Whether any weight of the adapter changed."""
        return not equal(self.start, self.adapter)

    def distance(self, other: Trained) -> float:
        """Norm of the difference of both adapters over the norm of the way that this one went."""
        apart = sum(float(((self.adapter[name] - other.adapter[name]) ** 2).sum()) for name in self.adapter)
        went = sum(float(((self.adapter[name] - self.start[name]) ** 2).sum()) for name in self.adapter)
        return (apart / went) ** 0.5 if went else float(apart > 0)


@dataclass
class Lab:
    """Runs cells of one algorithm. What all checks compare with is run once and kept."""

    plugin: type[Algorithm]
    info: PluginInfo
    settings: Mapping[str, Any]
    folder: Path
    _count: int = 0

    def cell(
        self, *, seed: int = 0, settings: Mapping[str, Any] | None = None, precision: Any = "fp32",
        checkpoint_s: float = 1e9, budget: Mapping[str, float] | None = None, **task: Any,
    ) -> CellSpec:  # fmt: skip
        """A cell on the toy model; ``task`` are the toy task's settings."""
        limits: dict[str, Any] = dict(budget or {"steps": STEPS})
        return CellSpec(
            model=ModelSpec(label="toy", folder=toy_folder(), precision=precision),
            task=PluginSpec(name="toy", label="toy", settings=task),
            budget=BudgetSpec(name="toy", **limits),
            algorithm=PluginSpec(
                name=self.info.name, label="candidate", settings={**self.settings, **(settings or {})}
            ),
            seed=seed,
            lora=LoraSpec(r=4, alpha=8),
            evaluators=(PluginSpec(name="toy", label="toy"),),
            judge=PluginSpec(name="toy", label="toy"),
            evaluation=EvaluationSpec(prompts=2, probes=0),
            preparation=PreparationSpec(prompts=16, samples=2, reward_model=RewardModelSpec(steps=2)),
            warm_start=(
                WarmStartSpec(
                    algorithm=PluginSpec(name="toy-nudge", label="nudge"), budget=BudgetSpec(name="toy", seconds=1e9)
                ),
            ),
            checkpoint_s=checkpoint_s,
        )

    @functools.cached_property
    def plain(self) -> Trained:
        """The cell that others are held against. Raises what the algorithm does."""
        return self.run(self.cell())

    def training(self) -> Trained:
        """``plain``, for checks that mean nothing of an algorithm that does not train."""
        if not self.plugin.trains:
            raise DoesNotApply("it leaves the policy as it is")
        return self.plain

    @functools.cached_property
    def again(self) -> Trained:
        """The same cell, run a second time."""
        return ended(self.run(self.cell()))

    def repeatable(self) -> Trained:
        """``plain``, for checks that compare runs bit for bit."""
        if not self.training().same_as(self.again):
            raise DoesNotApply("two runs of one seed differ: mend `seed` first")
        return self.plain

    def run(
        self,
        cell: CellSpec,
        *,
        name: str = "",
        stop_after: int | None = None,
        on_pass: Callable[[Trained], None] = lambda trained: None,
        start: Mapping[str, Tensor] | None = None,
        count: bool = False,
    ) -> Trained:
        """Run a cell; with the ``name`` of one that was stopped ``stop_after`` steps, go on with it.

        ``on_pass`` is called before each pass with gradients; what it raises, the model raises. ``start`` replaces
        the policy's first weights. ``count`` counts what is computed, by whatever model. Raises what the cell raises;
        a cell that was given up says so in ``gave_up``.
        """
        from bakeoff import worker
        from bakeoff.setup import load

        worker.quiet()
        self._count += 1
        name = name or f"cell-{self._count}"
        store = Store(self.folder / "run")
        trained = Trained(store.open_cell(name))
        watch = _Watch(trained, stop_after, on_pass, start, count)
        watch.run = worker.CellRun(cell, name, load(cell), store, watch.progress)
        log = (trained.folder / "log.txt").open("a")
        try:
            with watch.hooks(), log, contextlib.redirect_stdout(log):
                watch.run.run()
            trained.left = _copied(watch.run)
        except GivenUp as reason:
            trained.gave_up = str(reason)
            trained.spent = watch.run.meter.fraction
        return trained


@dataclass
class _Watch:
    """Looks at a cell while it trains, and writes what it sees into ``trained``."""

    trained: Trained
    stop_after: int | None
    on_pass: Callable[[Trained], None]
    start: Mapping[str, Tensor] | None
    count: bool
    run: CellRun = field(init=False)
    begun: float | None = None
    """When training began, on the monotonic clock."""
    counting: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def progress(self, phase: str, fraction: float, note: str) -> None:
        """Called by the cell as its phases go on: at the start of training, after each step, and at its end."""
        trained = self.trained
        if phase == "train" and self.begun is None:
            self.begun = time.monotonic()
            if self.start is not None:
                for key, parameter in _trained(self.run).items():
                    parameter.data.copy_(self.start[key])
            trained.start, trained.frozen = _copied(self.run), _frozen(self.run)
            self._count_flops()
        elif phase == "train":
            trained.fractions.append(self.run.meter.fraction)
            if len(trained.fractions) == self.stop_after:
                raise GivenUp
        elif phase == "evaluate":
            self.counting.close()
            trained.adapter, trained.frozen_after = _copied(self.run), _frozen(self.run)
            trained.spent = self.run.meter.fraction

    def _count_flops(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        if self.count:
            counter = self.counting.enter_context(FlopCounterMode(display=False))
            self.counting.callback(lambda: setattr(self.trained, "computed", float(counter.get_total_flops())))

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Within the block, passes of the shared model and steps of optimizers are seen."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        handles = [
            self.run.setup.roles.backbone.register_forward_pre_hook(self._before_pass),
            register_optimizer_step_post_hook(self._after_update),
        ]
        with self.counting:
            try:
                yield
            finally:
                for handle in handles:
                    handle.remove()

    def _before_pass(self, module: Any, inputs: Any) -> None:
        import torch

        if self.begun is None or not torch.is_grad_enabled():
            return
        most = RUNAWAY * self.run.cell.budget.limits().get("steps", 1e9)
        if self.run.meter.fraction > RUNAWAY or self.trained.updates > most:
            raise GivenUp(f"it had spent {RUNAWAY:g} times its budget and was going on")
        if time.monotonic() - self.begun > LONGEST_S:
            raise GivenUp(f"it had trained for {LONGEST_S:g} s on the toy model and was going on")
        self.on_pass(self.trained)

    def _after_update(self, optimizer: Any, *ignored: Any) -> None:
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if self.begun is not None and any(id(weight) in held for weight in _trained(self.run).values()):
            self.trained.updates += 1


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights have the same names, shapes and bits."""
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def ended(trained: Trained) -> Trained:
    """The cell, if it was not given up. Raises ``Broken``."""
    if trained.gave_up:
        raise Broken(trained.gave_up, "Loop over `context.steps()`, or hand `context.callbacks` to the trainer.")
    return trained


def _trained(run: CellRun) -> dict[str, Any]:
    """What the algorithm trains: the policy's adapter, or the reward model's with its head."""
    return {str(index): weight for index, weight in enumerate(run.setup.roles.parameters(run.algorithm.role))}


def _copied(run: CellRun) -> dict[str, Tensor]:
    return {name: weight.detach().float().clone() for name, weight in _trained(run).items()}


def _frozen(run: CellRun) -> dict[str, str]:
    """Hashes of the base and of the frozen roles that there are."""
    roles = run.setup.roles
    base = [weight for name, weight in roles.model.named_parameters() if "lora_" not in name]
    yardsticks: tuple[Role, ...] = ("reference", "reward")
    others = [role for role in yardsticks if role != run.algorithm.role and roles.has(role)]
    groups: dict[str, Any] = {"base": base} | {role: roles.parameters(role) for role in others}
    return {name: _hash(weights) for name, weights in groups.items()}


def _hash(weights: list[Any]) -> str:
    import torch

    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
