"""Checkpoints of hand-written loops: what is kept comes back as it was, and nothing else can be kept."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from bakeoff.budget import Meter
from bakeoff.checkpoint import STATE, LoopCheckpoints, _from_json, _to_json, complete, latest_checkpoint
from bakeoff.contracts import TrainContext
from bakeoff.errors import PluginError
from bakeoff.optim import MasterAdamW
from bakeoff.roles import RoleModel
from bakeoff.testing import toy_model


class Counter:
    """A count that a loop keeps beside its optimizer."""

    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


@pytest.fixture
def begin(tmp_path):
    """``begin()`` is a cell's context, fresh or resumed: six steps, a checkpoint after each."""

    def make(**fields):
        config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        torch.manual_seed(0)
        roles = RoleModel(get_peft_model(toy_model(), config))
        meter = Meter({"steps": 6})
        checkpoints = LoopCheckpoints(tmp_path, roles, 0.0, meter.state)
        nothing = None
        return TrainContext(
            policy=roles.model, roles=roles, tokenizer=nothing, prompts=nothing, demonstrations=nothing,
            preferences=nothing, reward=nothing, meter=meter, seed=0, folder=tmp_path, max_new_tokens=4,
            resume_from=latest_checkpoint(tmp_path), loop_checkpoints=checkpoints, **fields,
        )  # fmt: skip

    return make


def train(context, stop=None):
    """A loop whose every step depends on the weights, AdamW's moments, a count and the global generator."""
    optimizer, counter = context.optimizer(1e-2), Counter()
    steps = []
    for step in context.steps(optimizer, counter):
        steps.append(step)
        if step == stop:
            break
        counter.count += 1
        for weight in context.roles.parameters("policy"):
            weight.grad = counter.count * torch.randn_like(weight)
        optimizer.step()
    return steps, [weight.detach().clone() for weight in context.roles.parameters("policy")]


def resumed(context):
    """With the cell's own state, as the worker does it."""
    import json

    context.meter.restore(json.loads((context.resume_from / STATE).read_text()))
    return context


def test_a_loop_goes_on_where_it_was(begin, tmp_path):
    """Cut off in step 4: the next attempt begins with step 4, and ends with the weights of one that never stopped."""
    _, whole = train(begin())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]  # the last one, and none at the end
    (tmp_path / "checkpoint-5" / STATE).unlink()
    steps, _ = train(begin(), stop=4)
    assert steps == [0, 1, 2, 3, 4]
    steps, weights = train(resumed(begin()))
    assert steps == [4, 5]
    assert all(torch.equal(a, b) for a, b in zip(whole, weights, strict=True))


def test_a_loop_that_hands_over_nothing_keeps_nothing(begin, tmp_path):
    """What it holds elsewhere could not come back, so it starts again."""
    context = begin()
    assert list(context.steps()) == [0, 1, 2, 3, 4, 5]
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_waits_for_its_time(begin, tmp_path):
    """Not one in the first hour."""
    context = begin()
    context.loop_checkpoints.checkpoint_s = 3600.0
    train(context)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_was_cut_off_does_not_count(tmp_path):
    """The newest complete one does: 10 is newer than 9."""
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (9, 10):
        complete(tmp_path / f"checkpoint-{step}", {})
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_other_objects_than_were_kept_are_refused(begin):
    """A loop that hands over one thing less would go on with a fresh one."""
    train(begin(), stop=2)
    context = begin()
    with pytest.raises(PluginError, match="kept 2 objects and trained policy; this one keeps 1"):
        next(context.steps(context.optimizer(1e-2)))


def test_states_come_back_as_they_were():
    """Numbers as keys, tuples, no number at all, an fp32 master beside a bf16 weight; tensors that share memory."""
    shared = torch.arange(4.0)
    state = {
        0: (0.9, 0.999),
        "nested": [{"b": None, "c": True}, 1 / 3, "text"],
        "nan": math.inf,
        "views": [shared[:2], shared],
    }
    tensors = {}
    back = _from_json(_to_json(state, tensors), tensors)
    views = back.pop("views")
    state.pop("views")
    assert back == state
    assert isinstance(back[0], tuple)
    assert torch.equal(views[0], torch.tensor([0.0, 1.0]))
    assert torch.equal(views[1], shared)


def test_masters_stay_in_fp32(begin, tmp_path):
    """What a bf16 weight cannot hold is in the checkpoint, and is there again after it."""
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = MasterAdamW([weight], lr=1e-5)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    master = optimizer.state[weight]["master"]
    tensors = {}
    other = MasterAdamW([weight], lr=1e-5)
    other.load_state_dict(_from_json(_to_json(optimizer.state_dict(), tensors), tensors))
    assert torch.equal(other.state[weight]["master"], master)
    assert master[0] != 1


def test_what_only_a_pickle_could_hold_is_refused():
    """With what it was, and what to give in its place."""
    with pytest.raises(PluginError, match="cannot hold set, which only a pickle could"):
        _to_json({"seen": {1, 2}}, {})
