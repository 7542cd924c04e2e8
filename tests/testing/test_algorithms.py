"""The promises of an algorithm: an honest one keeps all of them, and for each there is one that does not."""

import random
from types import MappingProxyType

import pytest
import torch

from bakeoff import registry
from bakeoff.contracts import Algorithm, PluginSettings, Preset
from bakeoff.on_policy import OnPolicyAlgorithm
from bakeoff.seeds import derive_seed
from bakeoff.testing import ConformanceError, check_algorithm, examine, lab, toy_model
from bakeoff.testing.lab import STEPS

pytestmark = pytest.mark.slow  # a dishonest plugin is trained to be found out, some of them thrice


class Drawn:
    """A generator that a checkpoint can hold."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self):
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])


class Honest(Algorithm):
    """Maximum likelihood by hand, which the others are variations of."""

    title = "Honest"
    consumes = frozenset({"demonstrations"})

    class Settings(PluginSettings):
        learning_rate: float = 1e-2
        """Peak."""
        batch: int = 6
        """Rows a step."""
        micro_batch: int = 64
        """Rows a forward pass."""

    def train(self, context):
        self.begin(context)
        for _ in self.steps(context):
            self.step(context)

    def begin(self, context):
        self.optimizer = context.optimizer(self.settings.learning_rate)
        self.drawn = Drawn(self.seed(context))

    def seed(self, context):
        return derive_seed(context.seed, "rows")

    def steps(self, context):
        return context.steps(self.optimizer, self.drawn)

    def rows(self, context):
        picks = torch.randint(len(context.demonstrations), (self.settings.batch,), generator=self.drawn.generator)
        return [context.demonstrations[int(pick)] for pick in picks]

    def step(self, context):
        rows = self.rows(context)
        whole = sum(label >= 0 for row in rows for label in row["labels"])
        total = 0.0
        for start in range(0, len(rows), self.settings.micro_batch):
            part = rows[start : start + self.settings.micro_batch]
            loss = self.loss(context, part, whole)
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.log(context, total)

    def loss(self, context, rows, tokens):
        """The sum over the part's tokens by the tokens of the step."""
        total = 0
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            logits = context.policy(input_ids=ids).logits[0, :-1]
            total = total + torch.nn.functional.cross_entropy(logits.float(), labels[1:], reduction="sum")
        return total / tokens

    def log(self, context, loss):
        context.log({"loss": loss})


class GoesOn(Honest):
    """Trains as long again when the budget is spent, without telling the meter."""

    def train(self, context):
        super().train(context)
        for _ in range(STEPS):
            self.step(context)


class ThinksOn(Honest):
    """Has the model compute when the budget is spent, to choose among what it has."""

    def train(self, context):
        super().train(context)
        with torch.no_grad():
            self.loss(context, self.rows(context), 1)


class ThinksElsewhere(Honest):
    """Asks a model of its own, which no budget knows of."""

    def begin(self, context):
        super().begin(context)
        self.teacher = toy_model(hidden=128)

    def step(self, context):
        ids = torch.zeros(8, 32, dtype=torch.long)
        self.teacher(input_ids=ids)
        super().step(context)


class CountsNothing(Honest):
    """Has a loop of its own, and the meter hears of no step."""

    def steps(self, context):
        return range(STEPS)


class NeverEnds(Honest):
    """Ignores the budget for good."""

    def steps(self, context):
        while True:
            yield 0
            context.meter.count_step()
            context.on_step()


class CountsEverySecond(Honest):
    """Two updates for the price of one."""

    def step(self, context):
        super().step(context)
        super().step(context)


class TrainsTheBase(Honest):
    """Unfreezes everything that has a gradient, which is most of the base."""

    def begin(self, context):
        super().begin(context)
        weights = [weight for weight in context.policy.parameters() if weight.is_floating_point()]
        for weight in weights:
            weight.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(weights, lr=1e-3)


class TouchesTheReference(Honest):
    """Lets the reference follow the policy, which makes its KL small."""

    def step(self, context):
        super().step(context)
        with torch.no_grad():
            roles = context.roles
            for old, new in zip(roles.parameters("reference"), roles.parameters("policy"), strict=True):
                old.lerp_(new, 0.1)


class TouchesTheReward(registry.load("algorithm", "grpo")):
    """Makes what is rewarded better."""

    def train(self, context):
        super().train(context)
        if context.roles.has("reward"):
            with torch.no_grad():
                context.roles.heads["reward"].bias.add_(1.0)


class IgnoresTheSeed(Honest):
    """Draws rows by Python's own generator, which nobody seeds."""

    def seed(self, context):
        return random.SystemRandom().randrange(2**31)


class HasALuckySeed(Honest):
    """Draws the same rows whatever the seed."""

    def seed(self, context):
        return 17


class PeeksAtTheTestRows(Honest):
    """Finds its way to the held-out rows and trains on them."""

    def begin(self, context):
        super().begin(context)
        self.leaked = context.on_step.__self__.setup.rows.test

    def rows(self, context):
        row = self.leaked[len(self.leaked) // 2]
        completion = row.completions["completion"]
        leaked = {"input_ids": row.prompt_ids + completion, "labels": [-100] * len(row.prompt_ids) + completion}
        return [*super().rows(context)[1:], leaked]


class ForgetsItsCheckpoint(registry.load("algorithm", "sft")):
    """A trainer that is not told where it was, while the meter is."""

    def train(self, context):
        context.resume_from = None
        super().train(context)


class KeepsHalfOfItsState(Honest):
    """A loop whose checkpoint holds the optimizer, and not the generator that draws its rows."""

    def steps(self, context):
        return context.steps(self.optimizer)


class KeepsNoCheckpoint(Honest):
    """Hands over nothing, so a killed cell starts again."""

    def steps(self, context):
        return context.steps()


class LogsTwice(Honest):
    """Counts its log lines in a variable that no checkpoint holds, and logs a second line at every third."""

    lines = 0

    def log(self, context, loss):
        self.lines += 1
        for _ in range(2 if self.lines % 3 == 0 else 1):
            super().log(context, loss)


class ScalesWithAccumulation(Honest):
    """Means of parts, added up: more parts, more loss."""

    def loss(self, context, rows, tokens):
        return super().loss(context, rows, sum(label >= 0 for row in rows for label in row["labels"]))


class LogsNothing(Honest):
    """Keeps its loss to itself."""

    def log(self, context, loss):
        pass


class SwallowsTheLackOfMemory(Honest):
    """Skips a step that did not fit, and nobody hears of it."""

    def step(self, context):
        try:
            super().step(context)
        except RuntimeError:
            self.optimizer.zero_grad()


class HidesTheLackOfMemory(Honest):
    """Tells of it as if it were something else."""

    def step(self, context):
        try:
            super().step(context)
        except RuntimeError:
            raise ValueError("bad batch") from None


class RemembersTheLackOfMemory(Honest):
    """Takes it easier ever after, in whatever cell."""

    ease = 1.0

    def seed(self, context):
        self.optimizer.param_groups[0]["lr"] *= type(self).ease
        return super().seed(context)

    def step(self, context):
        try:
            super().step(context)
        except RuntimeError:
            type(self).ease = 0.5
            raise


class TakesMoreCapacity(Honest):
    """Gives itself four times the rank that the others have."""

    def begin(self, context):
        for module in context.policy.modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                for part, axis in ((module.lora_A["default"], 0), (module.lora_B["default"], 1)):
                    part.weight = torch.nn.Parameter(part.weight.detach().repeat_interleave(4, axis))
        super().begin(context)


class ExpectsFloat32(Honest):
    """Multiplies by the head's weights in fp32 by hand, which an NF4 cell holds in bf16."""

    def loss(self, context, rows, tokens):
        (row,) = rows[:1]
        hidden = context.roles.hidden(torch.tensor([row["input_ids"]]), torch.ones(1, len(row["input_ids"])).long())
        logits = hidden.float() @ context.roles.lm_head.weight.T
        return torch.nn.functional.cross_entropy(logits[0, :-1], torch.tensor(row["labels"][1:]))


class ExplainsNothing(Honest):
    """Has a setting without a word on it."""

    class Settings(Honest.Settings):
        mystery: float = 0.5


class HasNoName(Honest):
    """Is listed without a title."""

    title = " "


class WantsNothing(Honest):
    """Trains on a row of its own."""

    consumes = frozenset()

    def rows(self, context):
        return [{"input_ids": [2, 3, 4], "labels": [-100, 3, 4]}]


class WantsWhatNobodyHas(Honest):
    """Trains on a kind of row that no task can give."""

    consumes = frozenset({"demonstrations", "dreams"})


class HasAPresetThatDoesNotFit(Honest):
    """A paper's settings under a name that the plugin does not know."""

    presets = MappingProxyType({"paper": Preset("Paper", "", {"learning_rte": 1e-3})})


class HidesItsReward(registry.load("algorithm", "grpo")):
    """Logs all but what it was paid."""

    def train(self, context):
        record = context.record
        context.record = lambda metrics: record({key: value for key, value in metrics.items() if key != "reward"})
        super().train(context)


class LogsWhatIsNoNumber(Honest):
    """A diagnostic that is 0/0 at first."""

    def log(self, context, loss):
        context.log({"loss": loss, "kl": float("nan")})


class StaysWhereItIs(Honest):
    """Computes, logs, and never moves."""

    def begin(self, context):
        super().begin(context)
        self.optimizer = torch.optim.SGD(context.roles.parameters("policy"), lr=0.0)


class MovesWhenItIsMeasured(Honest):
    """Goes a little further before it shows what it can do."""

    def train(self, context):
        super().train(context)
        self.kept = context

    def complete(self, context):
        for weight in self.kept.roles.parameters("policy"):
            weight.data.mul_(1.1)
        return super().complete(context)


class CannotGoOn(Honest):
    """Finds its checkpoint and does not know what to do with it."""

    def begin(self, context):
        super().begin(context)
        if context.resume_from is not None:
            raise NotImplementedError("resume")


class SavesWhatItBeganWith(Honest):
    """Has the untrained adapter written in the place of the trained one."""

    def begin(self, context):
        super().begin(context)
        policy, save = context.policy, context.policy.save_pretrained
        start = {name: weight.detach().clone() for name, weight in policy.state_dict().items()}
        policy.save_pretrained = lambda folder, **options: save(folder, **{**options, "state_dict": start})


class MovesOnlyInFloat32(Honest):
    """Leaves an adapter that is held in bf16 as it is."""

    def begin(self, context):
        super().begin(context)
        weights = context.roles.parameters("policy")
        self.optimizer = torch.optim.SGD(weights, lr=1e-2 if weights[0].dtype == torch.float32 else 0.0)


class TakesWhatItDoesNotConsume(Honest):
    """Says that it trains on prompts, and asks for demonstrations."""

    consumes = frozenset({"prompts"})


class GivesOneAdvantageACompletion(OnPolicyAlgorithm):
    """Forgets that a completion has tokens."""

    title = "Flat"

    def advantages(self, rollout):
        return rollout.rewards - rollout.rewards.mean()


class GivesOneLossAToken(OnPolicyAlgorithm):
    """Leaves the mean to somebody else."""

    title = "Unreduced"

    def policy_loss(self, batch, logps):
        return -batch.advantages * logps


class KeepsATensor(OnPolicyAlgorithm):
    """Has a state that no JSON file holds."""

    title = "Tensor"

    def state(self):
        return {"baseline": torch.zeros(2)}


class Fails(Honest):
    """Raises in its second step."""

    def step(self, context):
        if context.meter.steps:
            raise KeyError("chosen")
        super().step(context)


class ExplainsNothingAndFails(Fails):
    """Two faults, neither of which hides the other."""

    class Settings(Honest.Settings):
        mystery: int = 3


def test_an_honest_algorithm_keeps_every_promise():
    """All of them apply to it but the reward's, and the report says so."""
    conformance = check_algorithm(Honest)
    verdicts = {finding.name: finding.verdict for finding in conformance.findings}
    assert verdicts.pop("reward") == "does not apply"
    assert set(verdicts.values()) == {"kept"}
    report = conformance.markdown()
    assert "`Honest`: passed" in report
    assert "| seed: The seed determines the result" in report


@pytest.mark.parametrize(
    ("algorithm", "broken", "told"),
    [
        (StaysWhereItIs, "trains", "what it was, bit for bit"),
        (Fails, "trains", "KeyError: 'chosen'"),
        (NeverEnds, "trains", "4 times its budget"),
        (MovesWhenItIsMeasured, "trains", "moved after training had ended"),
        (TakesWhatItDoesNotConsume, "trains", "`context.demonstrations` is not there"),
        (GivesOneAdvantageACompletion, "trains", "gave a tensor of shape (64,) and not (64, 8)"),
        (GivesOneLossAToken, "trains", "policy_loss() gave a tensor of shape (32, 8) and not a scalar"),
        (HasNoName, "described", "`title` is empty"),
        (WantsNothing, "described", "`consumes` is empty"),
        (ExplainsNothing, "described", "'mystery' is not explained"),
        (WantsWhatNobodyHas, "described", "`consumes` names 'dreams'"),
        (HasAPresetThatDoesNotFit, "described", "preset 'paper' has settings that are not valid"),
        (GoesOn, "budget", "12 updates of the policy on a budget of 6"),
        (ThinksOn, "budget", "computing after its last step"),
        (ThinksElsewhere, "budget", "of which the meter saw"),
        (CountsNothing, "budget", "6 updates, and no step was counted"),
        (CountsEverySecond, "budget", "12 updates of the policy on a budget of 6"),
        (TakesMoreCapacity, "capacity", "had 8192 weights before training and has 32768"),
        (TrainsTheBase, "base", "weights of the base differ"),
        (TouchesTheReference, "reference", "weights of the reference differ"),
        (TouchesTheReward, "reward", "weights of the reward differ"),
        (IgnoresTheSeed, "seed", "two runs of one seed"),
        (HasALuckySeed, "seed", "two seeds gave the same weights"),
        (PeeksAtTheTestRows, "held_out", "other held-out rows"),
        (ForgetsItsCheckpoint, "resume", "killed in step 5 and resumed from step 4, it ended with other weights"),
        (KeepsHalfOfItsState, "resume", "killed in step 5 and resumed from step 4, it ended with other weights"),
        (KeepsNoCheckpoint, "resume", "it had left no checkpoint and would start again"),
        (KeepsATensor, "resume", "KeepsATensor.state() gave what JSON does not hold"),
        (CannotGoOn, "resume", "resumed from step 4, it failed: NotImplementedError: resume"),
        (LogsTwice, "resume", "the log has lines of steps"),
        (ScalesWithAccumulation, "splitting", "micro_batch 3 and 64"),
        (LogsNothing, "metrics", "'loss' is logged at 0 of 6 steps; logged is nothing"),
        (HidesItsReward, "metrics", "'reward' is logged at 0 of 6 steps; logged is"),
        (LogsWhatIsNoNumber, "metrics", "'kl' is nan at step 1"),
        (SwallowsTheLackOfMemory, "memory", "went on after it ran out of memory"),
        (HidesTheLackOfMemory, "memory", "ended as 'plugin_error': ValueError: bad batch"),
        (RemembersTheLackOfMemory, "memory", "the next one ended with other weights"),
        (TakesMoreCapacity, "adapter", "size mismatch"),
        (SavesWhatItBeganWith, "adapter", "peft loads other weights"),
        (MovesOnlyInFloat32, "four_bit", "did not move in 2 updates"),
        (ExpectsFloat32, "four_bit", "same dtype"),
    ],
)
def test_a_dishonest_algorithm_breaks_its_promise(algorithm, broken, told):
    """What happened and how to mend it are said."""
    conformance = examine("algorithm", algorithm, only=[broken])
    assert [finding.name for finding in conformance.broken] == [broken]
    assert told in conformance.broken[0].found
    assert conformance.broken[0].fix
    with pytest.raises(ConformanceError, match="to mend:"):
        conformance.raise_if_broken()


@pytest.mark.parametrize(
    ("algorithm", "fix"),
    [(TakesWhatItDoesNotConsume, 'Add "demonstrations" to `consumes`.'), (Fails, f"Mend what raised it: {__file__}:")],
)
def test_what_raises_says_how_to_mend_it(algorithm, fix):
    """An error of bakeoff's says it itself; for any other the plugin's own line is told."""
    (finding,) = examine("algorithm", algorithm, only=["trains"]).broken
    assert finding.fix.startswith(fix)
    assert "Add" not in finding.found


def test_what_trains_for_too_long_is_given_up(monkeypatch):
    """Before it has spent four times its budget, which may be days."""
    monkeypatch.setattr(lab, "LONGEST_S", 0.0)
    (finding,) = examine("algorithm", Honest, only=["trains"]).broken
    assert "it had trained for 0 s on the toy model and was going on" in finding.found


def test_chance_is_blamed_once():
    """Where two runs of one seed differ, what compares runs bit for bit says so, and does not accuse it of peeking."""
    findings = examine("algorithm", IgnoresTheSeed, only=["seed", "held_out", "resume", "memory"]).findings
    assert [finding.verdict for finding in findings] == ["kept", "broken", *["does not apply"] * 3]
    assert "mend `seed` first" in findings[-1].found


def test_what_does_not_train_cannot_be_checked_further():
    """When no cell ends, the other promises are not reached, but for what it says of itself, which needs no cell."""
    first, second, *others = examine("algorithm", Fails).findings
    assert (first.name, first.verdict, second.name, second.verdict) == ("described", "kept", "trains", "broken")
    assert {finding.verdict for finding in others} == {"not reached"}


def test_what_is_not_said_is_told_of_what_does_not_train():
    """Both at once: an unexplained setting, and that it fails."""
    broken = examine("algorithm", ExplainsNothingAndFails).broken
    assert [finding.name for finding in broken] == ["described", "trains"]
