"""Sampling and log-probabilities: reproducible, of one distribution, untouched by neighbours, padding and chunks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from bakeoff import rollout
from bakeoff.rollout import (
    Sequences,
    completion_hidden,
    completion_logps,
    end_ids,
    inverse_cdf,
    logits_of,
    logps_as,
    sample,
    score,
    token_logps,
    uniforms,
)

EOS = 0
PROMPTS = [[3, 4, 5, 6], [7, 8], [9], [10, 11, 12]]
COMPLETIONS = [[9, 10, EOS], [11, 12, 13, 14], [EOS], [15, 16]]


def pack(prompts=PROMPTS, completions=COMPLETIONS):
    return Sequences.pack(prompts, completions, pad=EOS, device="cpu")


def draw(roles, prompts=PROMPTS, *, seed=0, length=12, **options):
    return sample(roles, prompts, uniforms(seed, len(prompts), length), eos=[EOS], pad=EOS, **options)


# ------------------------------------------------------------------------------------------- packing


def test_masks_come_from_lengths():
    """The tokenizer pads with EOS, and the EOS that ends a completion counts all the same."""
    packed = pack()
    assert packed.prompt_mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1]]
    assert packed.completion_mask.sum(1).tolist() == [3, 4, 1, 2]
    assert packed.completion_ids[0].tolist() == [9, 10, EOS, EOS]
    assert packed.attention_mask.sum().item() == sum(map(len, PROMPTS)) + sum(map(len, COMPLETIONS))


def test_rows_of_a_pack_shed_the_padding_that_they_do_not_need():
    """The same as packing these rows alone."""
    part, alone = pack()[torch.tensor([1, 2])], pack(PROMPTS[1:3], COMPLETIONS[1:3])
    assert torch.equal(part.input_ids, alone.input_ids)
    assert torch.equal(part.attention_mask, alone.attention_mask)


def test_an_empty_prompt_is_an_error():
    """There is no position to predict the first token from."""
    with pytest.raises(ValueError, match="no tokens"):
        pack([[]], [[3]])


def test_an_empty_completion_scores_nothing(make_roles):
    """A row without tokens is all zeros and disturbs nobody."""
    logps = logps_as(make_roles(), "policy", pack(PROMPTS[:2], [[], [11, 12]]))
    assert (logps[0] == 0).all()
    assert (logps[1] < 0).all()


# ------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_completion_depends_on_its_own_draws_alone(precision, make_roles):
    """Again, in batches of another size, and in another company: the same tokens."""
    roles = make_roles(precision, noise=0.05)
    whole = draw(roles)
    assert draw(roles).ids == whole.ids
    assert draw(roles, batch=1).ids == whole.ids
    assert draw(roles, batch=3).ids == whole.ids
    backwards = sample(roles, PROMPTS[::-1], uniforms(0, 4, 12).flip(0), eos=[EOS], pad=EOS)
    assert backwards.ids == whole.ids[::-1]
    assert draw(roles, seed=1).ids != whole.ids


def test_common_random_numbers(make_roles):
    """A policy that is its reference samples its reference's text, letter for letter."""
    roles = make_roles("nf4")
    policy = draw(roles)
    with roles.use("reference"):
        assert draw(roles).ids == policy.ids


def test_completions_end_at_eos_or_at_the_limit(make_roles):
    """EOS is kept as the last token and nothing follows it."""
    roles = make_roles()
    completions = draw(roles, PROMPTS * 16, length=20)
    assert any(completions.ended_eos)
    for ids, ended in zip(completions.ids, completions.ended_eos, strict=True):
        assert (EOS in ids) is ended
        assert EOS not in ids[:-1]
        assert ended or len(ids) == 20


def test_a_model_that_always_ends_gives_the_lone_eos(make_roles, monkeypatch):
    """All rows end at the first step."""
    monkeypatch.setattr(rollout, "inverse_cdf", lambda logits, draws: torch.zeros(len(logits), dtype=torch.long))
    assert draw(make_roles()).ids == [[EOS]] * 4


def test_the_ends_are_the_tokenizers_and_the_models(make_roles, tokenizer):
    """Chat models list further ids that end a turn in their generation config."""
    roles = make_roles()
    roles.causal_lm.generation_config.eos_token_id = [0, 7]
    assert end_ids(roles, tokenizer) == [0, 7]
    roles.causal_lm.generation_config.eos_token_id = None
    assert end_ids(roles, tokenizer) == [0]


def test_inverse_cdf_draws_from_the_softmax():
    """Chi-square of 200 000 draws over 20 tokens: below the 99.9 % quantile of 19 degrees of freedom (43.8)."""
    logits = torch.randn(20, generator=torch.Generator().manual_seed(0)) * 2
    draws = uniforms(0, 200_000, 1)[:, 0]
    chosen = inverse_cdf(logits.expand(len(draws), -1), draws)
    expected = torch.softmax(logits, 0) * len(draws)
    counts = torch.bincount(chosen, minlength=20)
    assert ((counts - expected) ** 2 / expected).sum() < 43.8


def test_a_token_of_probability_zero_is_never_drawn():
    """Not at the lowest, not at the highest possible draw, wherever the impossible tokens stand."""
    impossible = torch.tensor([True, False, True, False, True])
    logits = torch.zeros(5).masked_fill(impossible, -math.inf)
    draws = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-53], dtype=torch.float64)
    chosen = inverse_cdf(logits.expand(5, -1), draws)
    assert set(chosen.tolist()) == {1, 3}


def test_the_first_token_has_the_policys_distribution(make_roles):
    """Sampled through cache, merged weights and early stops: chi-square against the adapter's own probabilities."""
    roles = make_roles(noise=0.05)
    prompts = [[3, 4, 5]] * 4000
    second = [ids[1] for ids in draw(roles, prompts, length=2, batch=500).ids if len(ids) > 1]
    with torch.no_grad():
        everything = [[first, 1] for first in range(46)]
        packed = pack([[3, 4, 5]] * 46, everything)
        logits = logits_of(roles, completion_hidden(roles, packed)).view(46, 2, -1)
    first = torch.softmax(logits[0, 0], -1)
    first[EOS] = 0
    expected = (first[:46, None] * torch.softmax(logits[:, 1], -1)).sum(0)
    expected = expected / expected.sum() * len(second)
    counts = torch.bincount(torch.tensor(second), minlength=len(expected)).double()
    frequent = expected >= 5
    observed = torch.cat([counts[frequent], counts[~frequent].sum()[None]])
    expected = torch.cat([expected[frequent], expected[~frequent].sum()[None]])
    degrees = len(expected) - 1
    assert ((observed - expected) ** 2 / expected).sum() < degrees + 4.5 * math.sqrt(2 * degrees)


# -------------------------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize("role", ["policy", "value"])
@pytest.mark.parametrize("folder", ["toy", "toy_gpt2"])
def test_padding_moves_nothing(folder, role, make_roles, request):
    """Left padding of a prompt, right padding of a completion: log-probabilities and values stay."""
    roles = make_roles(folder=request.getfixturevalue(folder), noise=0.02)
    roles.add("value", train=True)
    make_roles.perturb(roles, "value", 0.02)
    alone = logps_as(roles, role, pack(PROMPTS[1:2], COMPLETIONS[1:2]))
    padded = logps_as(roles, role, pack([PROMPTS[1], [3] * 40], [COMPLETIONS[1], [4] * 9]))
    assert_close(padded[:1, :4], alone, atol=1e-5, rtol=0)
    assert (padded[0, 4:] == 0).all()


def test_learned_positions_count_the_tokens(make_roles, toy_gpt2):
    """Without positions from the mask, left padding would move a GPT-2 by far more than rounding."""
    roles = make_roles(folder=toy_gpt2)
    packed = pack([[3] * 40, PROMPTS[1]], [COMPLETIONS[1]] * 2)
    with torch.no_grad():
        right = roles.hidden(packed.input_ids, packed.attention_mask)
        wrong = roles.backbone(input_ids=packed.input_ids, attention_mask=packed.attention_mask)[0]
    assert (right[1] - wrong[1]).abs().max() > 1e-2


def test_tokens_after_the_end_change_nothing(make_roles):
    """Whatever stands in the padding behind EOS: log-probabilities and gradients are bit-identical."""
    roles = make_roles(noise=0.05)
    clean = pack()
    garbage = torch.where(clean.completion_mask.bool(), clean.completion_ids, torch.tensor(33))
    dirty = Sequences(clean.prompt_ids, clean.prompt_mask, garbage, clean.completion_mask)
    results = []
    for sequences in (clean, dirty):
        roles.model.zero_grad()
        logps = completion_logps(roles, sequences)
        logps.sum().backward()
        results.append([logps.detach(), *(p.grad.clone() for p in roles.parameters("policy"))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_log_probabilities_are_those_of_the_whole_model(make_roles):
    """Against the causal LM's own logits, one sequence at a time, without padding."""
    roles = make_roles(noise=0.05)
    logps = logps_as(roles, "policy", pack())
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        with torch.no_grad():
            logits = roles.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, -1)[torch.arange(len(completion)), completion]
        assert_close(logps[row, : len(completion)], expected, atol=1e-5, rtol=0)


def plain_logps(roles, hidden, ids):
    return torch.log_softmax(roles.lm_head(hidden).float(), -1).gather(1, ids[:, None]).squeeze(1)


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 47 * 3, 1 << 30])
def test_the_heads_own_gradient_is_autograds(chunk_bytes, make_roles, monkeypatch):
    """Values and gradients of the frozen head, whatever the chunk, unequal weights of the tokens included."""
    monkeypatch.setattr(rollout, "CHUNK_BYTES", chunk_bytes)
    roles = make_roles()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(10, 64, generator=generator, requires_grad=True)
    ids = torch.randint(47, (10,), generator=generator)
    weights = torch.randn(10, generator=generator)
    ours = token_logps(roles, hidden, ids)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), hidden)
    theirs = plain_logps(roles, hidden, ids)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), hidden)
    assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert_close(gradient, expected, atol=1e-5, rtol=0)


def test_a_confident_tokens_gradient_survives_bf16(make_roles):
    """Of probabilities up to 0.9999, to bf16's rounding of fp64's: 1 - p is not what bf16 leaves of 1 less p."""
    roles = make_roles("bf16")
    roles.lm_head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    weight = roles.lm_head.weight.detach().double()
    ids = torch.arange(2, 40)
    sure = weight[ids] / weight[ids].norm(dim=1, keepdim=True) ** 2
    hidden = (torch.linspace(4, 14, len(ids))[:, None] * sure).bfloat16()
    exact = hidden.double().requires_grad_()
    logps = torch.log_softmax(exact @ weight.T, 1).gather(1, ids[:, None])
    logps.sum().backward()
    assert logps.exp().min() < 0.9
    assert logps.exp().max() > 0.999
    hidden.requires_grad_()
    token_logps(roles, hidden, ids).sum().backward()
    error = (hidden.grad.double() - exact.grad).norm(dim=1) / exact.grad.norm(dim=1)
    assert error.max() < 0.1


@pytest.mark.parametrize("setting", ["final_logit_softcapping", "logit_scale", "logits_scaling"])
def test_what_follows_the_head_is_differentiated_too(setting, make_roles):
    """Soft caps and scales take the general path: same value as the formula, gradient as autograd's."""
    roles = make_roles()
    setattr(roles.causal_lm.config, setting, 2.0)
    hidden = torch.randn(6, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ids = torch.arange(6)
    ours = token_logps(roles, hidden, ids)
    (gradient,) = torch.autograd.grad(ours.sum(), hidden)
    logits = roles.lm_head(hidden)
    logits = {
        "final_logit_softcapping": torch.tanh(logits / 2) * 2, "logit_scale": logits * 2, "logits_scaling": logits / 2
    }[setting]  # fmt: skip
    theirs = torch.log_softmax(logits, -1)[torch.arange(6), ids]
    (expected,) = torch.autograd.grad(theirs.sum(), hidden)
    assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert_close(gradient, expected, atol=1e-5, rtol=0)


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation's output had among those as wide as the vocabulary."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, list | tuple) else [output]:
            is_weight = func is torch.ops.aten.t.default  # the head's, seen from the side
            if (
                isinstance(tensor, torch.Tensor)
                and not is_weight
                and tensor.dim() == 2
                and tensor.shape[1] == self.vocabulary
            ):
                self.rows = max(self.rows, tensor.shape[0])
        return output


def test_logits_of_all_positions_never_exist_at_once(make_roles, monkeypatch):
    """Forward and backward, with gradients and without: at most a chunk of rows is as wide as the vocabulary."""
    roles = make_roles()
    vocabulary = roles.lm_head.weight.shape[0]
    assert vocabulary not in (64, 128)
    monkeypatch.setattr(rollout, "CHUNK_BYTES", 4 * vocabulary * 3)
    packed = pack(PROMPTS * 4, COMPLETIONS * 4)
    with LargestTensor(vocabulary) as largest:
        completion_logps(roles, packed).sum().backward()
        logps_as(roles, "policy", packed)
        score(roles, packed)
    assert 0 < largest.rows <= 3


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_the_head_sees_contiguous_rows(precision, make_roles):
    """A frozen head on a strided three-dimensional slice copies its weight once a row on a CPU."""
    roles = make_roles(precision)
    seen = []
    roles.lm_head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    draw(roles)
    completion_logps(roles, pack())
    score(roles, pack())
    assert seen
    assert all(hidden.dim() == 2 and hidden.is_contiguous() for hidden in seen)


# ---------------------------------------------------------------------------------------- exact KL


def test_exact_kl_is_the_sum_over_the_vocabulary(make_roles):
    """Token by token against both models' own distributions; entropy as well; chunks do not matter."""
    roles = make_roles(noise=0.05)
    scores = score(roles, pack(), batch=3)
    prompt, completion = PROMPTS[1], COMPLETIONS[1]
    logs = []
    for role in ("policy", "reference"):
        with torch.no_grad(), roles.use(role):
            logits = roles.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        logs.append(torch.log_softmax(logits.double(), -1))
    expected = F.kl_div(logs[1], logs[0], log_target=True, reduction="none").sum(1)
    assert_close(scores.kl[1].double(), expected, atol=1e-5, rtol=0)
    assert_close(scores.entropy[1].double(), -(logs[0].exp() * logs[0]).sum(1), atol=1e-5, rtol=0)
    assert (scores.kl[scores.logps != 0] > 0).all()
    assert (scores.kl[2, 1:] == 0).all()


def test_exact_kl_is_the_mean_of_log_ratios(make_roles):
    """On the policy's own samples both estimate the same: within four standard errors of 2000 samples."""
    roles = make_roles(noise=0.05)
    prompts = [[3, 4, 5]] * 2000
    completions = draw(roles, prompts, length=4, batch=500)
    scores = score(roles, pack(prompts, completions.ids), batch=500)
    gap = (scores.logps - scores.reference_logps - scores.kl).sum(1)
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(2000)
    assert scores.kl.sum(1).mean() > 0.01


# ------------------------------------------------------------------------------------ 8 and 4 bits


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4"])
def test_scoring_takes_the_training_path(precision, make_roles):
    """Log-probabilities in eval mode without gradients are those of the update's forward pass, bit for bit."""
    roles = make_roles(precision, noise=0.05)
    roles.model.train()
    trained = completion_logps(roles, pack())
    assert trained.requires_grad
    assert torch.equal(trained, logps_as(roles, "policy", pack()))


def test_a_rollout_leaves_the_4_bit_base_as_it_is(make_roles):
    """Some CPUs' bitsandbytes repacks 4-bit weights at the first forward in eval mode, with other numbers and no
    backward: after a rollout the bytes, the log-probabilities and the gradients must be those of before."""
    roles = make_roles("nf4", noise=0.05)
    linears = [module for module in roles.backbone.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    assert linears
    assert not any(module.support_avx512bf16_for_cpu for module in linears)

    def gradients():
        roles.model.zero_grad()
        roles.model.train()
        logps = completion_logps(roles, pack())
        logps.sum().backward()
        return [logps.detach(), *(p.grad.clone() for p in roles.parameters("policy"))]

    weights, before = [module.weight.data.clone() for module in linears], gradients()
    draw(roles)
    score(roles, pack())
    assert all(torch.equal(module.weight.data, weight) for module, weight in zip(linears, weights, strict=True))
    after = gradients()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in after[1:])
