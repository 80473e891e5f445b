"""What a network costs: parameters, operations, memory.  Counted on the meta device, not run."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in module.parameters())


def flops(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one forward pass for one picture; a multiply-add counts two.

    Args:
        network: On the meta device.
        shape: (C, H, W).
    """
    with FlopCounterMode(display=False) as counter:
        _forward(network, shape, batch=1)
    return counter.get_total_flops()


def activation_bytes(network: nn.Module, shape: tuple[int, int, int], *, batch: int) -> int:
    """Bytes that a forward pass keeps for its backward pass, in float32.

    Args:
        network: On the meta device.
        shape: (C, H, W).
        batch: Pictures in a step.
    """
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their ids from being used twice

    def count(tensor: Tensor) -> Tensor:
        # A view, such as a transposed weight, takes no memory beside that of its base.
        base = tensor if tensor._base is None else tensor._base
        kept[id(base)] = base
        return tensor

    weights = {id(p) for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        _forward(network, shape, batch=batch)
    return sum(t.numel() * t.element_size() for key, t in kept.items() if key not in weights)


def _forward(network: nn.Module, shape: tuple[int, int, int], *, batch: int) -> None:
    x = torch.empty(batch, *shape, device="meta")
    network(x, torch.empty(batch, device="meta"), None)
