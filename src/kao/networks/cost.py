"""What a network costs: parameters, operations, memory.  Counted on the meta device, not run."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kao.networks.dropout import seeded


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

    What is recomputed (see `recompute`) counts with its inputs only.

    Args:
        network: On the meta device.
        shape: (C, H, W).
        batch: Pictures in a step.
    """
    with counting(network) as kept:
        _forward(network, shape, batch=batch)
    return kept.bytes


class Kept:
    """What autograd keeps, each storage once: a view takes no memory beside that of its base.

    Args:
        known: Tensors that are there anyway, such as weights.
    """

    def __init__(self, known: Iterable[Tensor]):
        # Holding the storages keeps their addresses from being used twice.
        self._known = {s._cdata: s for s in (tensor.untyped_storage() for tensor in known)}
        self._kept: dict[int, torch.UntypedStorage] = {}

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor, and hand it back."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._kept[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        """So far."""
        return sum(storage.nbytes() for storage in self._kept.values())


@contextmanager
def counting(module: nn.Module) -> Iterator[Kept]:
    """Count what is kept for a backward pass, on any device and in any precision.

    Args:
        module: Whose parameters do not count.
    """
    kept = Kept(module.parameters())
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
        yield kept


def _forward(network: nn.Module, shape: tuple[int, int, int], *, batch: int) -> None:
    x = torch.empty(batch, *shape, device="meta")
    seeds = torch.empty(batch, dtype=torch.int64, device="meta")
    with seeded(network, seeds):
        network(x, torch.empty(batch, device="meta"), None)
