"""The judge by reward model: of a run's stage, or of any whole sequence classifier; never one with a random head."""

import json

import pytest
from bakeoff.evaluators.reward_model import RewardModelJudge, RewardModelSettings
from pydantic import ValidationError

from bakeoff import setup as setups
from bakeoff.errors import ModelError, StoreError
from bakeoff.judging import ask
from bakeoff.spec import PluginSpec
from bakeoff.stages import Stages
from bakeoff.store import Store
from bakeoff.testing import examine

ROW = {"id": "a", "prompt": "it was "}


@pytest.fixture
def save_classifier(tmp_path, tokenizer):
    """Saves a small random classifier with ``outputs`` outputs over the toy's tokenizer; returns its folder."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    def save(outputs=1, name="classifier"):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, num_labels=outputs, pad_token_id=0, eos_token_id=0,
            bos_token_id=None,
        )  # fmt: skip
        LlamaForSequenceClassification(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def reward_of(folder, prompt, completion):
    """What transformers itself says of one conversation, without batch and padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    inputs = tokenizer(
        tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False, return_tensors="pt"
    )
    with torch.no_grad():
        return AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits.item()


def test_classifier_decides_as_its_rewards_do(save_classifier, make_context):
    """Batched and padded, each verdict is what the two rewards, computed one by one, say; both orders agree."""
    folder = save_classifier()
    texts = ["good", "a bad film, seen here", "", "three", "we were there and never here"]
    left, right = zip(*[(a, b) for a in texts for b in texts if a != b], strict=True)
    judge = RewardModelJudge(RewardModelSettings(model=folder, batch=3))
    outcomes = ask(judge, make_context([]), [ROW] * len(left), left, right)
    rewards = {text: reward_of(folder, ROW["prompt"], text) for text in texts}
    assert [outcome.value for outcome in outcomes] == [
        float(rewards[a] > rewards[b]) for a, b in zip(left, right, strict=True)
    ]
    assert len({outcome.value for outcome in outcomes}) == 2
    assert judge.facts["model"]


def test_close_rewards_are_a_tie(save_classifier, make_context):
    """Within epsilon nobody wins."""
    judge = RewardModelJudge(RewardModelSettings(model=save_classifier(), epsilon=1e9))
    assert judge.compare(make_context([]), [ROW], ["good"], ["bad"]) == ["tie"]


def test_language_model_is_no_reward_model(toy, make_context):
    """Its head would be random numbers: refused, with the name of what is missing."""
    with pytest.raises(ModelError, match=r"score\.weight would be random numbers"):
        RewardModelJudge(RewardModelSettings(model=toy)).compare(make_context([]), [ROW], ["x"], ["y"])


def test_classifier_of_classes_is_no_reward_model(save_classifier, make_context):
    """Two outputs are not one reward."""
    with pytest.raises(ModelError, match="has 2 outputs"):
        RewardModelJudge(RewardModelSettings(model=save_classifier(outputs=2))).compare(
            make_context([]), [ROW], ["x"], ["y"]
        )


@pytest.mark.parametrize("given", [{}, {"model": "a/b", "stage": "there"}])
def test_one_source_is_needed(given):
    """Neither none nor two."""
    with pytest.raises(ValidationError, match="either `stage` or `model`"):
        RewardModelSettings(**given)


@pytest.fixture
def stage(toy_cell, tmp_path):
    """The stage of a reward model that prefers words with an "e", and the training reward that it was in its run."""
    path = tmp_path / "pairs.jsonl"
    pairs = [("three", "bad"), ("were", "was"), ("here", "film"), ("seen", "good")]
    words = ["the", "film", "a", "we", "never", "sweet"]
    rows = [
        {"prompt": f"{word} {n} ", "chosen": pairs[n % 4][0], "rejected": pairs[(n + 1) % 4][1]}
        for n in range(8)
        for word in words
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = PluginSpec(name="file", label="pairs", settings={"train": str(path), "max_new_tokens": 8})
    stages = Stages(setups.load(toy_cell("grpo", task=task)), Store(tmp_path / "run"), lambda *_: None)
    stages.reward_model()
    (folder,) = (tmp_path / "run" / "stages").glob("reward-model-*")
    return folder, stages.setup.train_reward


def test_reward_model_of_a_stage_is_the_one_that_was_trained(stage, make_context):
    """Loaded on a base of its own, it prefers what the run's training reward ranks higher, and says how good it is."""
    folder, trained = stage
    judge = RewardModelJudge(RewardModelSettings(stage=folder))
    left, right = ["three", "bad", "here", "film"], ["bad", "were", "good", "seen"]
    found = judge.compare(make_context([]), [ROW] * 4, left, right)
    gaps = [a - b for a, b in zip(trained([ROW] * 4, left), trained([ROW] * 4, right), strict=True)]
    assert found == ["a" if gap > 0 else "b" for gap in gaps]
    assert set(found) == {"a", "b"}
    assert judge.facts["comparisons"] > 0


def test_stage_of_another_kind_or_base_is_refused(stage, make_context, tmp_path):
    """A folder that is no reward model, and one whose base has changed since, are named."""
    folder, _ = stage

    def judge(where):
        return RewardModelJudge(RewardModelSettings(stage=where)).compare(make_context([]), [ROW], ["x"], ["y"])

    record = json.loads((folder / "stage.json").read_text())
    for change, error in (
        ({"kind": "samples"}, StoreError),
        ({"inputs": record["inputs"] | {"model": "0"}}, ModelError),
    ):
        (folder / "stage.json").write_text(json.dumps(record | change))
        with pytest.raises(error, match="reward model"):
            judge(folder)
    with pytest.raises(StoreError, match="does not exist"):
        judge(tmp_path)


def test_it_keeps_a_judges_promises(save_classifier):
    """Those of the conformance kit."""
    examine("judge", "reward_model", {"model": str(save_classifier())}).raise_if_broken()
