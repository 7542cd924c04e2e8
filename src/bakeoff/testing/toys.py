"""For tests of plugins and of bakeoff itself: a toy language model that trains in seconds on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ALPHABET = " abcdefghijklmnopqrstuvwxyz.,:?=+-0123456789\n"


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; upper case is folded. EOS pads too, as in many models: the hard case."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<eos>", "<unk>", *ALPHABET])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}<eos>{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return fast


def toy_model(*, architecture: str = "llama", layers: int = 2, hidden: int = 64, seed: int = 0) -> PreTrainedModel:
    """A random causal LM over ``toy_tokenizer``: "llama" (rotary positions) or "gpt2" (learned positions)."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    vocabulary = len(ALPHABET) + 2
    torch.manual_seed(seed)
    if architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_embd=hidden,
                n_layer=layers,
                n_head=4,
                n_positions=256,
                bos_token_id=0,
                eos_token_id=0,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=True,
        )
    )


def save_toy(folder: Path, *, warm_steps: int = 60, **shape: object) -> Path:
    """Save a toy model that has seen some English-like words, so that a reward can be learned by LoRA.

    On a random base, LoRA cannot move the near-uniform logits of a frozen random embedding.
    """
    import torch

    tokenizer = toy_tokenizer()
    model = toy_model(**shape)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    words = ["the", "film", "was", "good", "bad", "seen", "three", "we", "were", "there", "here", "never", "a", "sweet"]
    for _ in range(warm_steps):
        picks = torch.randint(len(words), (16, 12), generator=generator)
        texts = [" ".join(words[pick] for pick in row) for row in picks.tolist()]
        ids = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"][:, :40]
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
