"""AdamW with fp32 master weights."""

import copy

import torch
from torch.testing import assert_close

from bakeoff.optim import MasterAdamW


def parameters(dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(5, 3, generator=generator).to(dtype)) for _ in range(3)]


def train(optimizer, params, steps, *, first=0, skip=()):
    """Steps on reproducible gradients; ``skip`` are (step, parameter) without one."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for index, p in enumerate(params):
            gradient = torch.randn(p.shape, generator=generator).to(p.dtype)
            p.grad = None if (step, index) in skip else gradient
        optimizer.step()


def test_with_fp32_parameters_it_is_torchs_adamw():
    """Same numbers after ten steps, weight decay and a parameter that misses some gradients included."""
    ours, theirs = parameters(torch.float32), parameters(torch.float32)
    options = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}
    train(MasterAdamW(ours, **options), ours, 10, skip={(0, 1), (4, 1)})
    train(torch.optim.AdamW(theirs, **options), theirs, 10, skip={(0, 1), (4, 1)})
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, atol=1e-7, rtol=1e-6)


def test_small_updates_accumulate_in_bf16():
    """A thousand updates of 1e-5 on a weight of 1 move it by 1e-2; torch's AdamW loses every one of them."""
    ours, theirs = (torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16)) for _ in range(2))
    for optimizer, p in ((MasterAdamW([ours], lr=1e-5), ours), (torch.optim.AdamW([theirs], lr=1e-5), theirs)):
        for _ in range(1000):
            p.grad = torch.ones_like(p)
            optimizer.step()
    assert_close(ours.float(), torch.tensor([0.99]), atol=4e-3, rtol=0)
    assert theirs.item() == 1.0


def test_a_bf16_parameter_is_its_master_rounded():
    """The masters follow fp32 AdamW on the same gradients."""
    low, high = parameters(torch.bfloat16), [torch.nn.Parameter(p.float()) for p in parameters(torch.bfloat16)]
    optimizer = MasterAdamW(low, lr=1e-2)
    reference = torch.optim.AdamW(high, lr=1e-2, weight_decay=0.0)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for a, b in zip(low, high, strict=True):
            a.grad = torch.randn(a.shape, generator=generator).bfloat16()
            b.grad = a.grad.float()
        optimizer.step()
        reference.step()
    for a, b in zip(low, high, strict=True):
        assert_close(optimizer.state[a]["master"], b.data, atol=1e-6, rtol=1e-6)
        assert torch.equal(a.data, optimizer.state[a]["master"].bfloat16())


def test_groups_have_learning_rates_of_their_own():
    """A group at 0 stays where it is."""
    params = parameters(torch.float32)
    before = [p.detach().clone() for p in params]
    optimizer = MasterAdamW([{"params": params[:1]}, {"params": params[1:], "lr": 0.0}], lr=0.1)
    train(optimizer, params, 1)
    assert not torch.equal(params[0], before[0])
    assert torch.equal(params[1], before[1])


def test_a_loaded_state_goes_on_exactly():
    """Five steps, a checkpoint, five more on new objects: as ten, and the masters stay fp32."""
    whole = parameters(torch.bfloat16)
    train(MasterAdamW(whole, lr=1e-2), whole, 10)
    first = parameters(torch.bfloat16)
    optimizer = MasterAdamW(first, lr=1e-2)
    train(optimizer, first, 5)
    saved = copy.deepcopy(optimizer.state_dict())
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    resumed = MasterAdamW(second, lr=1e-2)
    resumed.load_state_dict(saved)
    assert all(resumed.state[p]["master"].dtype == torch.float32 for p in second)
    train(resumed, second, 5, first=5)
    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))
