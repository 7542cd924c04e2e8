"""AdamW that keeps fp32 master copies of low-precision parameters. Every algorithm trains with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from bakeoff.roles import RoleModel


def layer_groups(roles: RoleModel, learning_rate: float, decay: float) -> list[dict[str, Any]]:
    """The policy's parameter groups: the top layer at ``learning_rate``, each one below at ``decay`` times that."""
    if decay == 1.0:
        return [{"params": roles.parameters("policy")}]
    groups: dict[int, list[Any]] = {layer: [] for layer in reversed(range(roles.layers))}
    for layer, parameter in roles.layered_parameters("policy"):
        groups[layer].append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * decay ** (roles.layers - 1 - layer)}
        for layer, parameters in groups.items()
        if parameters
    ]


class MasterAdamW(torch.optim.Optimizer):
    """AdamW (arXiv:1711.05101, Algorithm 2) whose state is fp32 whatever the parameters are in.

    A bf16 LoRA weight of 0.04 has neighbours 1e-4 apart, so updates of a usual learning rate would vanish
    in it; they accumulate in the master copy instead. With fp32 parameters this is torch's AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if not self.state[p]:
                    master = p.detach().to(torch.float32, copy=True)
                    self.state[p] = {
                        "step": torch.zeros(()),
                        "master": master,
                        "exp_avg": torch.zeros_like(master),
                        "exp_avg_sq": torch.zeros_like(master),
                    }
            states = [self.state[p] for p in parameters]
            beta1, beta2 = group["betas"]
            gradients = [p.grad.float() for p in parameters]
            masters = [s["master"] for s in states]
            means = [s["exp_avg"] for s in states]
            squares = [s["exp_avg_sq"] for s in states]
            for s in states:
                s["step"] += 1
            steps = [s["step"].item() for s in states]
            torch._foreach_lerp_(means, gradients, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
            denominators = torch._foreach_sqrt(squares)
            torch._foreach_div_(denominators, [(1 - beta2**n) ** 0.5 for n in steps])
            torch._foreach_add_(denominators, group["eps"])
            torch._foreach_mul_(masters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_addcdiv_(masters, means, denominators, [-group["lr"] / (1 - beta1**n) for n in steps])
            torch._foreach_copy_(parameters, masters)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but without its cast of the state to the parameters' dtype: masters stay fp32."""
        super().load_state_dict(state_dict)
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, saved in state_dict["state"].items():
            p = parameters[index]
            self.state[p] = {
                key: value.detach().clone() if key == "step" else value.to(p.device, torch.float32, copy=True)
                for key, value in saved.items()
            }
