"""Where an algorithm is put to the test: whole cells on a toy model, in this process, watched from outside."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff import registry
from bakeoff.catalogue import PluginInfo
from bakeoff.contracts import Algorithm
from bakeoff.errors import BakeoffError
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

from .playthings import Nudge, ToyEvaluator, ToyJudge, ToyTask
from .promises import Broken, DoesNotApply

if TYPE_CHECKING:
    from torch import Tensor

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
    """The policy's adapter before training ..."""
    adapter: dict[str, Tensor] = field(default_factory=dict)
    """... and after it."""
    frozen: dict[str, str] = field(default_factory=dict)
    """A hash of what must not move (base, reference, reward) before training ..."""
    frozen_after: dict[str, str] = field(default_factory=dict)
    """... and after it."""
    fractions: list[float] = field(default_factory=list)
    """The share of the budget spent after each step that the meter was told of."""
    spent: float = 0.0
    """The share of the budget spent when training ended."""
    updates: int = 0
    """Steps of an optimizer that holds a policy weight, whether or not the meter was told."""
    gave_up: str = ""

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
    ) -> Trained:
        """Run a cell; with the ``name`` of one that was stopped ``stop_after`` steps, go on with it.

        ``on_pass`` is called before each pass with gradients; what it raises, the model raises. ``start`` replaces
        the policy's first weights. Raises what the cell raises; a cell that was given up says so in ``gave_up``.
        """
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        from bakeoff import worker
        from bakeoff.setup import load

        worker.quiet()
        self._count += 1
        name = name or f"cell-{self._count}"
        store = Store(self.folder / "run")
        trained = Trained(store.open_cell(name))
        setup = load(cell)
        begun: list[float] = []

        def progress(phase: str, fraction: float, note: str) -> None:
            if phase == "train" and not begun:
                begun.append(time.monotonic())
                if start is not None:
                    for key, parameter in _policy(run).items():
                        parameter.data.copy_(start[key])
                trained.start, trained.frozen = _copied(run), _frozen(run)
            elif phase == "train":
                trained.fractions.append(run.meter.fraction)
                if len(trained.fractions) == stop_after:
                    raise GivenUp
            elif phase == "evaluate":
                trained.adapter, trained.frozen_after = _copied(run), _frozen(run)
                trained.spent = run.meter.fraction

        def before_pass(module: Any, inputs: Any) -> None:
            if not begun or not torch.is_grad_enabled():
                return
            if run.meter.fraction > RUNAWAY or trained.updates > RUNAWAY * cell.budget.limits().get("steps", 1e9):
                raise GivenUp(f"it had spent {RUNAWAY:g} times its budget and was going on")
            if time.monotonic() - begun[0] > LONGEST_S:
                raise GivenUp(f"it had trained for {LONGEST_S:g} s on the toy model and was going on")
            on_pass(trained)

        def after_update(optimizer: Any, *ignored: Any) -> None:
            held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
            if begun and any(id(weight) in held for weight in _policy(run).values()):
                trained.updates += 1

        run = worker.CellRun(cell, name, setup, store, progress)
        hooks = [
            setup.roles.backbone.register_forward_pre_hook(before_pass),
            register_optimizer_step_post_hook(after_update),
        ]
        try:
            with (trained.folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                run.run()
        except GivenUp as reason:
            trained.gave_up = str(reason)
            trained.spent = run.meter.fraction
        finally:
            for hook in hooks:
                hook.remove()
        return trained


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights have the same names, shapes and bits."""
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def ended(trained: Trained) -> Trained:
    """The cell, if it was not given up. Raises ``Broken``."""
    if trained.gave_up:
        raise Broken(trained.gave_up, "Loop over `context.steps()`, or hand `context.callbacks` to the trainer.")
    return trained


def _policy(run: CellRun) -> dict[str, Any]:
    return {str(index): weight for index, weight in enumerate(run.setup.roles.parameters("policy"))}


def _copied(run: CellRun) -> dict[str, Tensor]:
    return {name: weight.detach().float().clone() for name, weight in _policy(run).items()}


def _frozen(run: CellRun) -> dict[str, str]:
    """Hashes of the base and of the frozen roles that there are."""
    roles = run.setup.roles
    base = [weight for name, weight in roles.model.named_parameters() if "lora_" not in name]
    groups = {"base": base} | {role: roles.parameters(role) for role in ("reference", "reward") if roles.has(role)}
    return {name: _hash(weights) for name, weights in groups.items()}


def _hash(weights: list[Any]) -> str:
    import torch

    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# -------------------------------------------------------------------------------- the surroundings


@functools.cache
def _toy() -> tempfile.TemporaryDirectory[str]:
    from bakeoff import worker

    from .toys import save_toy

    worker.quiet()
    folder = tempfile.TemporaryDirectory(prefix="bakeoff-toy-")
    save_toy(Path(folder.name) / "model")
    return folder


def toy_folder() -> Path:
    """A toy model on disk, made once a process and gone with it."""
    return Path(_toy().name) / "model"


@contextmanager
def surroundings() -> Iterator[None]:
    """The plugins around the one that is checked are there by name."""
    with contextlib.ExitStack() as stack:
        for kind, name, plugin in _PLAYTHINGS:
            stack.enter_context(registry.lend(kind, name, plugin))
        yield


@contextmanager
def one_cpu() -> Iterator[None]:
    """One thread and no GPU: what makes runs equal bit for bit.

    Raises ``BakeoffError`` where torch has taken a GPU already.
    """
    import torch

    threads, gpus = torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        if torch.cuda.is_available():
            raise BakeoffError(
                "a check compares runs bit for bit, and torch uses a GPU in this process already.",
                fix="Set CUDA_VISIBLE_DEVICES to nothing before it starts.",
            )
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
        if gpus is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus


_PLAYTHINGS: tuple[tuple[registry.Kind, str, type[Any]], ...] = (
    ("task", "toy", ToyTask),
    ("evaluator", "toy", ToyEvaluator),
    ("judge", "toy", ToyJudge),
    ("algorithm", "toy-nudge", Nudge),
)
