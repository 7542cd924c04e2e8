"""Fixtures that several test files share."""

import os
from pathlib import Path

# Before any test imports torch: tests are small, and more threads only wait for each other. Exact equality is of CPUs;
# on a machine with a GPU, `CUDA_VISIBLE_DEVICES=0 pytest -m gpu` runs what needs one.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import pytest

FAKE_LAB = Path(__file__).parent / "fake_lab"
TOY_LAB = Path(__file__).parent / "toy_lab"


def _install(monkeypatch, site: Path, folder: Path, name: str, entry_points: str) -> None:
    """Make ``folder`` importable and a distribution ``name`` with these entry points visible, here and in children."""
    metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    for path in (folder, site):
        monkeypatch.syspath_prepend(path)
    paths = [str(folder), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture
def fake_lab(tmp_path, monkeypatch):
    """Makes ``fake_lab`` importable, here and in processes started from here, and installs its plugins."""
    kinds = ("Algorithm", "Task", "Evaluator", "Judge")
    points = "".join(f"[bakeoff.{kind.lower()}s]\nfake = fake_lab:Fake{kind}\n" for kind in kinds)
    _install(monkeypatch, tmp_path / "site", FAKE_LAB, "fake-lab", points)
    return "fake_lab"


@pytest.fixture
def toy_lab(tmp_path, monkeypatch):
    """Installs the task "letters": the reward is the share of "e"."""
    _install(monkeypatch, tmp_path / "site", TOY_LAB, "toy-lab", "[bakeoff.tasks]\nletters = toy_lab:Letters\n")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Converted models go to a temporary folder, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAKEOFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """A saved toy language model (Llama, two layers, hidden 64) that has seen some words."""
    from bakeoff.testing import save_toy

    return save_toy(tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture(scope="session")
def toy_gpt2(tmp_path_factory) -> Path:
    """The same with learned positions."""
    from bakeoff.testing import save_toy

    return save_toy(tmp_path_factory.mktemp("toy_gpt2") / "model", architecture="gpt2", warm_steps=20)


@pytest.fixture(scope="session")
def tokenizer():
    """The toy's tokenizer: one token a character, padded with EOS."""
    from bakeoff.testing import toy_tokenizer

    return toy_tokenizer()


@pytest.fixture
def make_roles(toy):
    """``make_roles(precision, folder=..., noise=...)``: a ``RoleModel`` on a toy.

    ``noise`` is the standard deviation of what is added to the policy's LoRA weights, so that it differs from
    its base.
    """
    import torch

    from bakeoff import models
    from bakeoff.roles import RoleModel
    from bakeoff.spec import LoraSpec, ModelSpec

    def make(precision="fp32", *, folder=toy, noise=0.0, r=4):
        spec = ModelSpec(label="toy", folder=folder, precision=precision)
        dtype = models.compute_dtype(spec)
        model = models.add_lora(models.load_base(spec), LoraSpec(r=r, alpha=2 * r), seed=0, dtype=dtype)
        roles = RoleModel(model)
        if noise:
            perturb(roles, "policy", noise)
        return roles

    def perturb(roles, role, noise):
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in roles.parameters(role):
                draws = torch.randn(parameter.shape, generator=generator)
                parameter.add_((noise * draws).to(parameter.dtype))

    make.perturb = perturb
    return make


@pytest.fixture
def toy_cell(toy, toy_lab):
    """``toy_cell("grpo", {settings}, precision=..., budget={...}, **fields)``: a ``CellSpec`` on task "letters"."""
    from bakeoff.spec import BudgetSpec, CellSpec, EvaluationSpec, ModelSpec, PluginSpec, PreparationSpec, WarmStartSpec

    def plugin(name, **settings):
        return PluginSpec(name=name, label=name, settings=settings)

    def make(algorithm, settings=None, *, precision="fp32", budget=None, task=None, warm_start=None, **fields):
        names = [warm_start] if isinstance(warm_start, str) else warm_start or ()
        start = tuple(
            WarmStartSpec(algorithm=plugin(name, learning_rate=5e-3, batch=8), budget=BudgetSpec(name="warm", steps=3))
            for name in names
        )
        return CellSpec(
            **{
                "model": ModelSpec(label="toy", folder=toy, precision=precision),
                "task": task or plugin("letters"),
                "budget": BudgetSpec(name="b", **(budget or {"steps": 4})),
                "algorithm": plugin(algorithm, **(settings or {})),
                "seed": 0,
                "evaluators": (plugin("reward"), plugin("kl")),
                "judge": plugin("gold"),
                "evaluation": EvaluationSpec(prompts=8, probes=0),
                "preparation": PreparationSpec(prompts=16, samples=4),
                "warm_start": start,
                "checkpoint_s": 1e9,
                **fields,
            }
        )

    return make


@pytest.fixture
def run_cell(tmp_path):
    """``run_cell(cell, run="a", progress=...)`` runs a cell into the run's store; returns the cell's folder."""
    from bakeoff import worker
    from bakeoff.store import Store

    def run(cell, *, name="cell", run="run", progress=lambda phase, fraction, note: None):
        store = Store(tmp_path / run)
        store.open_cell(name)
        worker.run_cell(cell, name, store, progress)
        return store.partial(name)

    return run


@pytest.fixture
def make_context(tokenizer, tmp_path):
    """``make_context(roles, budget={...})``: a ``TrainContext`` on a toy with prompts, demonstrations and pairs.

    The reward is the share of "e"; what is logged is in ``context.lines``.
    """
    import torch
    from datasets import Dataset

    from bakeoff.budget import Meter
    from bakeoff.callbacks import CellCallback
    from bakeoff.contracts import TrainContext

    words = ["the film ", "we were ", "a bad ", "never ", "three ", "sweet ", "there was ", "good "]

    def encode(text):
        return tokenizer(text)["input_ids"]

    def share_of_e(prompts, completions, **columns):
        return [text.count("e") / max(1, len(text)) for text in completions]

    def make(roles, *, budget=None, reward=share_of_e, max_new_tokens=8, seed=0):
        replies = [word.replace("a", "e")[: 3 + number % 4] for number, word in enumerate(words)]
        rows = [
            (str(i), encode(word), [*encode(reply), 0])
            for i, (word, reply) in enumerate(zip(words, replies, strict=True))
        ]
        meter = Meter(budget or {"steps": 1})
        meter.detach = meter.attach(roles)
        context = TrainContext(
            policy=roles.model,
            roles=roles,
            tokenizer=tokenizer,
            prompts=Dataset.from_list(
                [{"id": i, "prompt": w, "prompt_ids": p} for w, (i, p, _) in zip(words, rows, strict=True)]
            ),
            demonstrations=Dataset.from_list(
                [{"id": i, "input_ids": p + c, "labels": [-100] * len(p) + c} for i, p, c in rows]
            ),
            preferences=Dataset.from_list(
                [
                    {
                        "id": i, "prompt": tokenizer.decode(p), "chosen": tokenizer.decode(c), "rejected": "bad",
                        "prompt_ids": p, "chosen_ids": c, "rejected_ids": [*encode("bad luck"[: len(p)]), 0],
                    }
                    for i, p, c in rows
                ]
            ),
            reward=reward,
            meter=meter,
            seed=seed,
            folder=tmp_path / "checkpoints",
            max_new_tokens=max_new_tokens,
            max_tokens=32,
            text=Dataset.from_list([{"id": i, "input_ids": [*p, *c]} for i, p, c in rows]),
        )  # fmt: skip
        context.lines = []
        context.record = context.lines.append
        dtype = roles.parameters("policy")[0].dtype
        context.callbacks = [
            CellCallback(context, after_step=lambda: None, dtype=dtype, checkpoint_s=float("inf"), state=dict)
        ]
        torch.manual_seed(seed)
        return context

    return make


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command line in this process: (exit code, stdout, stderr)."""
    import sys

    from bakeoff import cli

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["bakeoff", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call
