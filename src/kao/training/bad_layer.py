"""Which layer of a model was the first whose numbers were not finite."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from kao.processes import ALONE, Processes
from kao.shards import local

NOWHERE = "no layer when the step was repeated"
"""Said where the step is finite the second time."""

LOSS = "the loss, after the last layer"
"""Said where all layers' outputs are finite and the loss is not."""


def first_bad_layer(
    objective: nn.Module, rerun: Callable[[], object], *, processes: Processes = ALONE
) -> str:
    """Repeat a step and name the first layer whose output, or else whose gradient, is not finite.

    Outputs are looked at in the order in which layers finish, gradients in the order in which they
    arrive, last layer first.  Gradients that are there are thrown away, before and after.

    Args:
        objective: Whose layers are named.
        rerun: Computes the losses of the step, returned or not, and their gradient.
        processes: All of them repeat their share; the first that finds something names it.

    Returns:
        "the output of denoiser.network.stem", "the input of ...", where what happened between
        layers is to blame, "the gradient of denoiser.network.head.weight", `LOSS` or `NOWHERE`.
    """
    forward: list[str] = []
    backward: list[str] = []

    def finished(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not forward and not _finite(output):
                end = "output" if _finite(inputs) else "input"
                forward.append(f"the {end} of {name}" if name else LOSS)

        return look

    def arrived(name: str) -> Callable[[Tensor], None]:
        def look(parameter: Tensor) -> None:
            if not backward and not _finite(parameter.grad):
                backward.append(name)

        return look

    with ExitStack() as stack:
        # Compiled layers would run without hooks, or be compiled again with them.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for name, module in objective.named_modules():
            stack.enter_context(module.register_forward_hook(finished(name)))
        for name, parameter in objective.named_parameters():
            if parameter.requires_grad:
                register = parameter.register_post_accumulate_grad_hook
                stack.callback(register(arrived(name)).remove)  # type: ignore[no-untyped-call]
        _forget_gradients(objective)
        rerun()
        # Gradients of sharded parameters arrive without a word: the last parameter's came first.
        backward += [n for n, p in [*objective.named_parameters()][::-1] if not _finite(p.grad)]
        _forget_gradients(objective)
    found = forward or [f"the gradient of {name}" for name in backward] or [""]
    return _first_of_all(found[0], processes) or NOWHERE


def _forget_gradients(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.grad = None


def _first_of_all(found: str, processes: Processes) -> str:
    """The first text of any process that is not empty."""
    letters = torch.tensor(list(f"{found}\n".encode()), dtype=torch.uint8)
    every = bytes(processes.gather(letters).tolist()).decode().split("\n")
    return next((text for text in every if text), "")


def _finite(value: Any) -> bool:
    """Whether all floating tensors in it are."""
    if isinstance(value, Tensor):
        return bool(local(value.detach()).isfinite().all())
    if isinstance(value, tuple | list):
        return all(_finite(inner) for inner in value)
    return True
