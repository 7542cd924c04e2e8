"""Base models, loaded: the precision they are held in, and the LoRA adapter on top.

GGUF weights are dequantised once into the cache. No pickle is read: weights are safetensors or GGUF.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff import modelfiles
from bakeoff.errors import ModelError
from bakeoff.spec import LoraSpec, ModelSpec

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT = 512
"""Tokens up to which plain attention is used on a CPU."""


def prepare(spec: ModelSpec) -> tuple[str, str | None]:
    """What ``from_pretrained`` takes: (folder or hub id, revision). Converts a GGUF file on first use."""
    source = modelfiles.locate(spec)
    if source.hub is not None:
        return source.hub, modelfiles.commit(source.hub, source.revision)
    if source.folder is not None:
        return str(source.folder), None
    assert source.gguf is not None
    folder = modelfiles.converted(modelfiles.fingerprint(spec))
    if not folder.is_dir():
        from filelock import FileLock

        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _convert(source.gguf, folder)
    return str(folder), None


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise to fp32 safetensors (GGUF's block scales are not representable in bf16), then rename."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        import gguf as _  # noqa: F401
    except ImportError:
        raise ModelError(
            f"reading {gguf.name} needs the package 'gguf'.", fix="Run: pip install 'bakeoff[gguf]'"
        ) from None
    temporary = folder.with_name(f"{folder.name}.partial")  # one worker converts at a time: what is there is debris
    shutil.rmtree(temporary, ignore_errors=True)
    with _reading(str(gguf), fix="Check the file against its source; transformers has to know its architecture."):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
    tokenizer.save_pretrained(temporary)
    model.save_pretrained(temporary)
    temporary.rename(folder)


@contextlib.contextmanager
def _reading(what: str, *, fix: str) -> Iterator[None]:
    """What libraries raise at files that are not what they should be, which is anything, as ``ModelError``."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{what} did not load: {type(error).__name__}: {error}", fix=fix) from error


def _in_cache(where: str) -> bool:
    return Path(where).is_relative_to(modelfiles.cache_folder())


def _keep(model: PreTrainedModel, folder: Path) -> None:
    """Save a quantised model; when another worker was first, its copy stands."""
    temporary = Path(f"{folder}.partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    try:
        temporary.rename(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The tokenizer, padding on the left (rollouts) and with a pad token (EOS when it has none)."""
    from transformers import AutoTokenizer

    where, revision = prepare(spec)
    with _reading(f"the tokenizer of model '{spec.label}' in {where}", fix="Save it beside the weights."):
        tokenizer = AutoTokenizer.from_pretrained(where, revision=revision, trust_remote_code=spec.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model '{spec.label}': its tokenizer has no EOS token.", fix="Choose another model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    import torch

    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def compute_dtype(spec: ModelSpec) -> torch.dtype:
    """fp32 for fp32 and on GPUs without bf16; otherwise bf16, also for the adapters on a quantised base."""
    import torch

    if spec.precision == "fp32":
        return torch.float32
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    return torch.bfloat16


def load_base(spec: ModelSpec, *, longest: int | None = None) -> PreTrainedModel:
    """The frozen base in ``spec.precision`` on ``device()``, in eval mode.

    ``longest`` is the most tokens a sequence can have: on a CPU, short ones get plain attention, since the backward
    of the CPU's fused kernel is several times slower in bf16; long ones need its memory savings.

    int8 (LLM.int8(), arXiv:2208.07339) and nf4 with double quantisation (QLoRA, arXiv:2305.14314 §3) are
    bitsandbytes', on CPU and GPU alike. Raises ``ModelError``.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    where, revision = prepare(spec)
    dtype = compute_dtype(spec)
    on_cpu = device().type == "cpu"
    quantization = None
    if spec.precision == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    elif spec.precision == "int8":
        quantization = BitsAndBytesConfig(load_in_8bit=True)
    # A model that was converted into the cache is quantised there once, too: that takes longer than reading it.
    kept = Path(where, f"{spec.precision}-{dtype}".replace("torch.", "")) if _in_cache(where) else None
    is_kept = quantization is not None and kept is not None and kept.is_dir()
    fix = (
        "It must be a causal language model with safetensors weights; "
        "code from the model's folder runs only with `trust_remote_code: true`."
    )
    with _reading(f"model '{spec.label}' in {where}", fix=fix):
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(kept) if is_kept else where,
            revision=revision,
            dtype=dtype,
            device_map={"": device()} if quantization is not None else None,
            use_safetensors=True,
            attn_implementation="eager" if longest is not None and longest <= SHORT and on_cpu else None,
            trust_remote_code=spec.trust_remote_code,
            **({} if quantization is None or is_kept else {"quantization_config": quantization}),
        )
    if quantization is not None and kept is not None and not is_kept:
        _keep(model, kept)
    if quantization is None:
        model.to(device())
    for module in model.modules():
        # On CPUs with AVX512-BF16, bitsandbytes repacks a 4-bit weight at the first forward in eval mode,
        # and the packed path rounds differently and has no backward: after one rollout no gradient would
        # pass the base. Keep the one exact path for sampling, scoring and training.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        # And its int8 layers round activations to 8 bits in eval mode, in training mode (on CPUs) they do not.
        if on_cpu and type(module).__name__ == "Linear8bitLt":
            module.train = functools.partial(_keep_training, module)
    model.requires_grad_(False)
    _disable_dropout(model)
    base: PreTrainedModel = model.eval()
    return base


def _keep_training(module: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    """In the place of a layer's ``train``."""
    module.training = True
    return module


def _disable_dropout(model: PreTrainedModel) -> None:
    """For everyone, in training too: what samples is what trains (the first ratio is 1), whatever a trainer's default.

    Of the large models none has any; GPT-2 and OPT have 0.1.
    """
    from torch.nn import Dropout

    for holder in (model.config.get_text_config(), *model.modules()):
        if isinstance(holder, Dropout):
            holder.p = 0.0
        for name, value in list(vars(holder).items()):
            if "drop" in name and isinstance(value, float):
                setattr(holder, name, 0.0)


def add_lora(base: PreTrainedModel, lora: LoraSpec, *, seed: int, dtype: torch.dtype) -> PeftModel:
    """A fresh adapter "default" (B = 0: the policy is the base) in ``dtype``, initialised from ``seed``.

    The name is peft's own, so that a checkpoint is a standard adapter folder and TRL finds its copy source. Raises
    ``ModelError`` where ``lora.targets`` has the language-model head, which all roles share.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(base, config)
    if isinstance(base.get_output_embeddings(), LoraLayer):
        raise ModelError(
            "lora.targets has the language-model head: its logits are computed in pieces, by every role alike.",
            fix="Take the head off lora.targets; 'all-linear' leaves it out.",
        )
    cast_adapters(model, dtype)
    # Loading an adapter (a resumed run), peft would put fp32 parameters in the place of these, and an optimizer
    # made before would go on training those that are no longer in the model.
    model.load_adapter = functools.partial(model.load_adapter, autocast_adapter_dtype=False)  # type: ignore[method-assign]
    return model


def cast_adapters(model: PeftModel, dtype: torch.dtype) -> None:
    """Hold all LoRA weights in ``dtype``; the optimizer keeps fp32 masters (``bakeoff.optim``).

    TRL casts the adapters of a quantised base to bf16 and peft those of any other to fp32; one rule for all
    algorithms keeps their arithmetic, and so their speed, comparable.
    """
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
