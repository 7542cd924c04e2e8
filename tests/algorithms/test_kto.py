"""KTO on the toy."""

import pytest
import torch
from bakeoff.algorithms.kto import UnpairedRows
from datasets import Dataset

from bakeoff import registry
from bakeoff.rollout import Sequences, logps_as


def paired(count):
    """Pairs whose completions are numbers: 10 + i is chosen, 20 + i rejected, under prompt i."""
    rows = ({"prompt_ids": [i], "chosen_ids": [10 + i], "rejected_ids": [20 + i]} for i in range(count))
    return Dataset.from_list(list(rows))


def test_every_completion_is_a_row_once_each_time_around():
    """Five pairs are ten rows; three batches of four end within the second permutation, in another order."""
    rows = UnpairedRows(paired(5), batch=4, seed=0)
    drawn = [rows[index] for index in range(20)]
    completions = [row["completion_ids"][0] for row in drawn]
    assert sorted(completions[:10]) == sorted(completions[10:]) == [10, 11, 12, 13, 14, 20, 21, 22, 23, 24]
    assert completions[:10] != completions[10:]
    assert all(row["label"] == (row["completion_ids"][0] < 20) for row in drawn)
    assert all(row["prompt_ids"][0] == row["completion_ids"][0] % 10 for row in drawn)
    others = UnpairedRows(paired(5), batch=4, seed=1)
    assert completions != [others[index]["completion_ids"][0] for index in range(20)]


def test_mismatches_are_of_the_same_batch():
    """Each batch's mismatched completions are its own, moved on by one row."""
    rows = UnpairedRows(paired(5), batch=4, seed=0)
    for start in (0, 4, 8):
        batch = [rows[index] for index in range(start, start + 4)]
        completions = [row["completion_ids"] for row in batch]
        assert [row["KL_completion_ids"] for row in batch] == [completions[-1], *completions[:-1]]


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_what_is_desirable(seed, make_roles, make_context, learn):
    """Thirty steps of "eeeeeee" as good and "a bad w" as bad: a fifth more "e" than before."""
    context = make_context(make_roles(r=8), budget={"steps": 30}, seed=seed)
    encode = context.tokenizer
    context.preferences = Dataset.from_list(
        [
            {"prompt": row["prompt"], "chosen": "eeeeeee", "rejected": "a bad w", "prompt_ids": row["prompt_ids"]}
            | {"chosen_ids": [*encode("eeeeeee")["input_ids"], 0], "rejected_ids": [*encode("a bad w")["input_ids"], 0]}
            for row in context.prompts
        ]
    )
    before, after = learn("kto", {"learning_rate": 1e-2, "batch": 16, "beta": 0.05}, context=context)
    assert after > before + 0.2


def test_the_loss_is_the_papers(make_roles, make_context):
    """Eq. 7 on the cell's own tokens, once the policy has moved: measured from a KL of mismatched rows."""
    roles = make_roles()
    context = make_context(roles, budget={"steps": 2})
    kto = registry.load("algorithm", "kto")
    settings = kto.Settings(batch=8, beta=0.5, learning_rate=1e-2, desirable_weight=2.0)
    rows = UnpairedRows(context.preferences, batch=8, seed=context.seed)
    second = [rows[index] for index in range(8, 16)]
    expected = []

    def log_ratios(kind):
        prompts, completions = [row["prompt_ids"] for row in second], [row[kind] for row in second]
        packed = Sequences.pack(prompts, completions, pad=0, device="cpu")
        policy = logps_as(roles, "policy", packed)
        with roles.use("reference"):
            return (policy - logps_as(roles, "reference", packed)).sum(1)

    def after_step():
        if not expected:
            zero = log_ratios("KL_completion_ids").mean().clamp(min=0)
            good = torch.tensor([row["label"] for row in second])
            above = 0.5 * (log_ratios("completion_ids") - zero)
            losses = torch.where(good, 2 * (1 - above.sigmoid()), 1 - (-above).sigmoid())
            expected.append(losses.mean().item())

    context.callbacks[0].after_step = after_step
    kto(settings).train(context)
    assert context.lines[1]["loss"] == pytest.approx(expected[0], abs=1e-4)


@pytest.mark.parametrize(("loss", "passes"), [("kto", 2), ("apo_zero_unpaired", 1)])
def test_the_passes_for_the_kl_are_on_the_ledger(loss, passes, make_roles, make_context):
    """A step of all sixteen completions scores them under the reference, and for the KL the mismatched ones again,
    which the policy scores, too; their completions are the same, each under another prompt."""
    context = make_context(make_roles())
    kto = registry.load("algorithm", "kto")
    kto(kto.Settings(batch=16, loss=loss)).train(context)
    pairs = list(context.preferences)
    tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in pairs)
    policy, reference = (context.meter.roles[role] for role in ("policy", "reference"))
    assert policy.tokens_trained == tokens
    assert policy.tokens_scored == (passes - 1) * tokens
    assert reference.tokens_scored == passes * tokens
