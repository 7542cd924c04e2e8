"""One base, several adapters: policy, reference, value and reward are roles of a single model.

The base is frozen and held once. A role is a LoRA adapter on it (the reference may be the base itself, its
adapters off) and, for value and reward, a small fp32 head of its own. Switching copies nothing.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from bakeoff import lora
from bakeoff.errors import RoleError

if TYPE_CHECKING:
    from peft import PeftModel

    from bakeoff.budget import Meter

Role = Literal["policy", "reference", "value", "reward"]

ADAPTERS: dict[Role, str] = {"policy": "default", "reference": "reference", "value": "value", "reward": "reward"}
"""Role to adapter. "default" is peft's name for a model's only adapter."""

TRL_REFERENCE = "ref"
"""TRL's name for the frozen copy of "default" that some of its trainers add; they fail when it is there already,
so ours has another."""


LAYER = re.compile(r"\.(\d+)\.")
"""The first number in a parameter's name is its layer, in every transformers decoder."""


class _Pending:
    """Lives as long as an autograd graph; ``done`` once its backward pass has begun."""

    done = False


class RoleModel:
    """A ``PeftModel`` seen by role.

    ``trained`` are the roles whose parameters an optimizer holds; their ``requires_grad`` survives a switch
    (peft's ``set_adapter`` clears it on all but the active adapter, and they would silently not train).
    """

    def __init__(self, model: PeftModel) -> None:
        self.model = model
        self.heads = nn.ModuleDict()
        self.adapters: dict[Role, str] = {role: name for role, name in ADAPTERS.items() if name in model.peft_config}
        """The adapter of each role there is. The value's may be the policy's own: only its head is its own then."""
        self.active: Role = "policy"
        self.mixed: tuple[Role, ...] = ()
        """While one pass runs as several roles: these, each on an equal share of the rows; the meter asks."""
        self.trained: set[str] = {"policy"}
        self.trained_layers: frozenset[int] = frozenset(range(self.layers))
        self.meter: Meter | None = None
        self._graphs: weakref.WeakSet[_Pending] = weakref.WeakSet()
        self.backbone.register_forward_hook(self._watch)

    # ------------------------------------------------------------------------------ the model's parts

    @property
    def causal_lm(self) -> Any:
        """The transformers model with its language-model head, LoRA layers inside."""
        return self.model.get_base_model()

    @property
    def backbone(self) -> nn.Module:
        """The transformer without the language-model head; gives hidden states (B, T, H)."""
        return self.causal_lm.base_model

    @property
    def lm_head(self) -> nn.Linear:
        """Hidden states to logits; its weight is (V, H)."""
        head: nn.Linear = self.causal_lm.get_output_embeddings()
        return head

    @property
    def layers(self) -> int:
        """How many layers the transformer has."""
        return int(self.causal_lm.config.get_text_config().num_hidden_layers)

    @property
    def device(self) -> torch.device:
        return self.causal_lm.get_input_embeddings().weight.device

    @property
    def recomputes_activations(self) -> bool:
        """Whether gradient checkpointing is on."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.causal_lm.modules())

    # -------------------------------------------------------------------------------------- adapters

    def add(
        self, role: Role, *, copy_of: Role | None = None, on_policy: bool = False, train: bool = False, seed: int = 0
    ) -> None:
        """Add ``role``'s adapter and, for value and reward, its fp32 head.

        A copy of another role's, in place of one that there is; or fresh: B = 0, A drawn from ``seed`` whatever was
        drawn before, the head zero. With ``on_policy`` it has a head only, which reads the policy's hidden states.
        """
        if on_policy:
            self.adapters[role] = self.adapters["policy"]
        else:
            self._add_adapter(role, copy_of, seed)
        if role in ("value", "reward"):
            width = self.causal_lm.config.get_text_config().hidden_size
            head = nn.utils.skip_init(nn.Linear, width, 1, device=self.device)
            source = self.heads[copy_of] if copy_of is not None and copy_of in self.heads else None
            with torch.no_grad():
                head.weight.copy_(source.weight) if source is not None else head.weight.zero_()
                head.bias.copy_(source.bias) if source is not None else head.bias.zero_()
            self.heads[role] = head
        if train:
            self.trained.add(role)
        self.refresh()

    def _add_adapter(self, role: Role, copy_of: Role | None, seed: int) -> None:
        adapter = self.adapters[role] = ADAPTERS[role]
        if copy_of is None or adapter not in self.model.peft_config:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.model.add_adapter(adapter, self.model.peft_config[self.adapters["policy"]])
        dtype = self.parameters("policy")[0].dtype
        sources = self.layered_parameters(role if copy_of is None else copy_of)
        for (_, parameter), (_, source) in zip(self.layered_parameters(role), sources, strict=True):
            parameter.data = source.data.to(dtype, copy=True)

    def remove(self, role: Role) -> None:
        """Take ``role`` away again, its adapter and its head: the next one of that name begins afresh."""
        if not self.shares_adapter(role):
            self.model.delete_adapter(self.adapters[role])
        del self.adapters[role]
        self.trained.discard(role)
        if role in self.heads:
            del self.heads[role]
        self.refresh()

    def has(self, role: Role) -> bool:
        """Whether ``role`` was added; without an adapter of its own, the reference is the base."""
        return role in self.adapters

    def shares_adapter(self, role: Role) -> bool:
        """Whether ``role`` reads the policy's hidden states through a head of its own."""
        return role != "policy" and self.adapters.get(role) == self.adapters["policy"]

    def parameters(self, role: Role) -> list[nn.Parameter]:
        """The role's own: its adapter's parameters and, where it has one, its head's."""
        adapter = [parameter for _, parameter in self.layered_parameters(role)]
        return adapter + (list(self.heads[role].parameters()) if role in self.heads else [])

    def layered_parameters(self, role: Role) -> list[tuple[int, nn.Parameter]]:
        """The adapter's parameters, each with its layer of the transformer.

        What is in none counts as the top one's, an embedding as the lowest one's.
        """
        # Of a matrix lora_A.<adapter>.weight, of an embedding lora_embedding_A.<adapter>.
        own = re.compile(rf"\.lora_\w+\.{self.adapters[role]}(\.|$)")
        named = [] if self.shares_adapter(role) else self.model.named_parameters()
        lowest, top = 0, self.layers - 1
        return [
            (int(match[1]) if (match := LAYER.search(name)) else lowest if "embedding" in name else top, parameter)
            for name, parameter in named
            if own.search(name)
        ]

    @contextmanager
    def training_only(self, layers: Collection[int]) -> Iterator[None]:
        """The policy's adapter trains in these layers only, counted from 0; the others get no gradient."""
        former, self.trained_layers = self.trained_layers, frozenset(layers)
        self.refresh()
        try:
            yield
        finally:
            self.trained_layers = former
            self.refresh()

    @contextmanager
    def attending(self, *, both_sides: bool) -> Iterator[None]:
        """Attention to both sides, or to the left only; what it was before is back afterwards.

        ``config.is_causal`` switches the mask of transformers' decoders; it says nothing to models with code of
        their own.
        """
        config = self.causal_lm.config.get_text_config()
        former = getattr(config, "is_causal", True)
        config.is_causal = not both_sides
        try:
            yield
        finally:
            config.is_causal = former

    # ------------------------------------------------------------------------------------- switching

    @contextmanager
    def use(self, role: Role) -> Iterator[None]:
        """Run as ``role``; the former role is back afterwards, whatever happens.

        Raises ``RoleError`` while a gradient-checkpointed graph waits for its backward pass: recomputation
        would run with the new role's adapter and give wrong gradients without any error.
        """
        former = self.active
        if role == former:
            yield
            return
        self._refuse_pending(role)
        self._switch(role)
        try:
            yield
        except BaseException:
            self._switch(former)  # what waits for a backward pass will never have one
            raise
        self._refuse_pending(former)
        self._switch(former)

    def refresh(self) -> None:
        """Set adapters and ``requires_grad`` as the active role needs them, after someone else moved them."""
        self._switch(self.active)

    def tidy(self) -> None:
        """Take off the adapters that a trainer added for itself, and be the active role again."""
        self.refresh()
        for adapter in set(self.model.peft_config) - set(ADAPTERS.values()):
            self.model.delete_adapter(adapter)

    def _switch(self, role: Role) -> None:
        tuner: Any = self.model.base_model
        if not self.has(role):
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            self.model.set_adapter(self.adapters[role])
        for other, adapter in self.adapters.items():
            if not self.shares_adapter(other):
                tuner.set_requires_grad(adapter, other in self.trained)
            if other in self.heads:
                self.heads[other].requires_grad_(other in self.trained)
        if len(self.trained_layers) < self.layers:
            for layer, parameter in self.layered_parameters("policy"):
                parameter.requires_grad_(layer in self.trained_layers and "policy" in self.trained)
        self.active = role

    def _refuse_pending(self, role: Role) -> None:
        if any(not graph.done for graph in self._graphs):
            raise RoleError(
                f"cannot switch from {self.active} to {role}: a gradient-checkpointed forward pass of {self.active} "
                "still waits for its backward pass, which would recompute it with the wrong adapter.",
                fix=f"Call backward() on the {self.active} loss (or drop it) before switching.",
            )

    def _watch(self, module: nn.Module, inputs: Any, output: Any) -> None:
        hidden = output[0]
        if torch.is_grad_enabled() and hidden.requires_grad and self.recomputes_activations:
            graph = _Pending()
            self._graphs.add(graph)
            # The graph owns the hook and the hook owns `graph`: both go when the graph is dropped.
            hidden.register_hook(lambda gradient, graph=graph: setattr(graph, "done", True))

    # --------------------------------------------------------------------------------------- forward

    def hidden(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Tensor:
        """Last hidden states (B, T, H) under the active role.

        Positions count the attended tokens, so left padding moves nothing in a model with learned positions.
        """
        return self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            **kwargs,
        )[0]

    def hidden_by_role(
        self, wanted: Sequence[Role], input_ids: Tensor, attention_mask: Tensor
    ) -> Iterator[tuple[Role, Tensor]]:
        """``hidden`` of several roles from one pass, each (B, T, H): a layer's 4-bit weights are unpacked once for all.

        With gradients, one backward pass serves all roles; under gradient checkpointing, which would recompute all as
        one, that raises ``RoleError``.
        """
        adapters = {role: self.adapters.get(role, lora.BASE) for role in wanted}
        distinct = {name: role for role, name in reversed(adapters.items())}
        # LLM.int8() looks for outliers over the whole batch, so there a row depends on its neighbours.
        apart = getattr(self.causal_lm, "is_loaded_in_8bit", False) or not lora.can_mix(self.backbone)
        if len(distinct) == 1 or apart:
            for name, runs in distinct.items():
                with self.use(runs):
                    hidden = self.hidden(input_ids, attention_mask)
                    yield from ((role, hidden) for role in wanted if adapters[role] == name)
            return
        if torch.is_grad_enabled() and self.recomputes_activations:
            raise RoleError(
                f"cannot train {' and '.join(wanted)} in one pass: gradient checkpointing would recompute it with one "
                "adapter for all.",
                fix="Give each role a pass of its own, and its backward() before the next, or turn checkpointing off.",
            )
        self.mixed = tuple(distinct.values())
        try:
            with self.use("policy"), lora.mixed(self.backbone, tuple(distinct)):
                many = self.hidden(input_ids.repeat(len(distinct), 1), attention_mask.repeat(len(distinct), 1))
            parts = dict(zip(distinct, many.chunk(len(distinct)), strict=True))
            for role, name in adapters.items():
                self.mixed = (role,)  # what is computed from its hidden states is its own
                yield role, parts[name]
        finally:
            self.mixed = ()

    def head_output(self, role: Role, hidden: Tensor) -> Tensor:
        """The scalar head of ``role`` in fp32 on hidden states (..., H); returns (...)."""
        return self.heads[role](hidden.float()).squeeze(-1)
