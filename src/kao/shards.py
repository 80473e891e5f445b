"""Tensors of which each process holds a part, and how the whole is had and put back.

Under fully sharded training a parameter, its average and its optimiser state are a `DTensor`:
each process holds some of the rows.  Everything that is saved, shown or loaded is whole, so that
it does not depend on how many processes there were.  A plain tensor passes through unchanged.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

from kao.processes import meeting

# Importing it takes half a second, which who is alone need not wait.
if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether this process holds only a part of it."""
    if not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part that lies in this process, sharing its memory; a plain tensor is its own part."""
    return tensor.to_local() if sharded(tensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """All of a tensor, on its device, in every process; a plain one is returned as it is.

    All processes must call this together where it is sharded.

    Raises:
        LoneError: Another process is gone.
    """
    if not sharded(tensor):
        return tensor
    with meeting():
        return tensor.full_tensor()


def whole(tensors: Mapping[str, Tensor], *, kept: bool = True) -> dict[str, Tensor]:
    """All of every tensor, by name.

    All processes must call this together where tensors are sharded, in the same order.

    Args:
        tensors: Plain or sharded.
        kept: Whether the caller wants them.  Where False, nothing is returned, but this process's
            parts are handed to the others: so only the one that saves needs the memory.

    Returns:
        Plain tensors as they are; the whole of sharded ones, on the CPU, one after the other, so
        that the device holds no more than one whole tensor at a time.
    """
    result = {}
    for name, tensor in tensors.items():
        value = tensor.detach()
        if sharded(value):
            everything = full(value)
            value = everything.cpu() if kept else everything
        if kept:
            result[name] = value
    return result


def like(value: Tensor, tensor: Tensor) -> Tensor:
    """`value`, whole in every process, laid out as `tensor` is and on its device."""
    if not sharded(tensor):
        return value.to(tensor.device)
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = tensor.device_mesh, tensor.placements
    # Every process has the whole, so each takes its part and nothing is sent.
    return distribute_tensor(value.to(tensor.device), mesh, placements, src_data_rank=None)


@torch.no_grad()
def put(tensor: Tensor, value: Tensor) -> None:
    """Copy `value`, whole in every process and of the same shape, into a tensor of any layout."""
    local(tensor).copy_(local(like(value, tensor)))


def split(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Take the sharded tensors out of a tree of dicts.

    Args:
        state: Of dicts, lists, tensors and plain values.

    Returns:
        The tree without them, and the tensors by their path: "optimizer/state/0/exp_avg".
    """
    rest: dict[str, Any] = {}
    parts: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Mapping):
            rest[key], inner = split(value)
            parts |= {f"{key}/{path}": tensor for path, tensor in inner.items()}
        elif isinstance(value, Tensor) and sharded(value):
            parts[str(key)] = value
        else:
            rest[key] = value
    return rest, parts
