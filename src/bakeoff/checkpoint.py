"""Checkpoints: which one a killed cell goes on from, and those of hand-written loops.

A checkpoint is a folder ``checkpoint-<step>``; ``bakeoff.json``, written last, makes it complete. Trainers fill it with
what transformers keeps. A loop's holds JSON and safetensors: the weights that it trains, what the ``state_dict()`` of
its objects gives, and torch's random state.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from bakeoff.errors import PluginError

if TYPE_CHECKING:
    from bakeoff.roles import RoleModel

STATE = "bakeoff.json"
"""Written last into a checkpoint: a checkpoint without it was cut off and is not resumed from."""
LOOP, TENSORS = "loop.json", "loop.safetensors"


class Stateful(Protocol):
    """What a checkpoint can hold: optimizers, modules, schedulers, and any class that has both methods.

    A state is made of dicts, lists, tuples, tensors, numbers, text and None.
    """

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint under ``folder``, or None."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{STATE}")]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def complete(folder: Path, state: Mapping[str, Any]) -> None:
    """Make a checkpoint whose other files are there one to resume from."""
    temporary = folder / f"{STATE}.partial"
    temporary.write_text(json.dumps(state))
    temporary.rename(folder / STATE)


@dataclass
class LoopCheckpoints:
    """Those of one cell's hand-written loop. ``state`` gives what the cell itself has to remember."""

    folder: Path
    roles: RoleModel
    checkpoint_s: float
    state: Callable[[], Mapping[str, Any]]
    _saved: float = field(default_factory=time.monotonic)

    def save_when_due(self, step: int, kept: Sequence[Stateful]) -> None:
        """Save if the last checkpoint is ``checkpoint_s`` old, and then delete the older ones."""
        if time.monotonic() - self._saved < self.checkpoint_s:
            return
        from safetensors.torch import save_file

        folder = self.folder / f"checkpoint-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tensors: dict[str, Tensor] = {}
        state = {
            "weights": {role: [weight.data for weight in weights] for role, weights in self._weights().items()},
            "kept": [each.state_dict() for each in kept],
            "random": [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())],
        }
        (folder / LOOP).write_text(json.dumps(_to_json(state, tensors)))
        save_file(tensors, folder / TENSORS)
        complete(folder, self.state())
        self._saved = time.monotonic()
        for older in self.folder.glob("checkpoint-*"):
            if older != folder:
                shutil.rmtree(older)

    def restore(self, checkpoint: Path, kept: Sequence[Stateful]) -> None:
        """Weights, objects and random state as they were saved. Raises ``PluginError`` where others were kept."""
        from safetensors.torch import load_file

        state = _from_json(json.loads((checkpoint / LOOP).read_text()), load_file(checkpoint / TENSORS))
        weights = self._weights()
        if state["weights"].keys() != weights.keys() or len(state["kept"]) != len(kept):
            raise PluginError(
                f"{checkpoint} is of a loop that kept {len(state['kept'])} objects and trained "
                f"{', '.join(state['weights'])}; this one keeps {len(kept)} and trains {', '.join(weights)}.",
                fix="Hand the same objects to context.steps() each time, and add roles before it.",
            )
        for role, saved in state["weights"].items():
            for weight, value in zip(weights[role], saved, strict=True):
                weight.data.copy_(value)
        for each, saved in zip(kept, state["kept"], strict=True):
            each.load_state_dict(saved)
        torch.set_rng_state(state["random"][0])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random"][1:])

    def _weights(self) -> dict[str, list[torch.nn.Parameter]]:
        """What is trained, by role."""
        return {role: self.roles.parameters(role) for role in sorted(self.roles.trained)}  # type: ignore[arg-type]


def _to_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON; its tensors go into ``tensors``. Keys of dicts may be numbers."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            name = str(len(tensors))
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name}
        case Mapping():
            return {"dict": [[_to_json(key, tensors), _to_json(each, tensors)] for key, each in value.items()]}
        case list() | tuple():
            return {type(value).__name__: [_to_json(each, tensors) for each in value]}
    raise PluginError(
        f"a checkpoint cannot hold {type(value).__name__}, which only a pickle could.",
        fix="Let state_dict() give dicts, lists, tensors, numbers and text.",
    )


def _from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "dict":
        return {_from_json(key, tensors): _from_json(each, tensors) for key, each in held}
    each = [_from_json(each, tensors) for each in held]
    return tuple(each) if kind == "tuple" else each
