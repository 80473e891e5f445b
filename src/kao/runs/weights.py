"""Looking at a model with other weights than those that are being trained."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def lent(model: nn.Module, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """The model in eval mode, with other weights for a while; nothing of it has changed after.

    Args:
        model: In train mode; changed in place.
        weights: By name, on any device; None leaves its own.
    """
    live = model.state_dict()
    own = {name: live[name].clone() for name in weights or {}}
    model.eval()
    try:
        _put(model, weights or {})
        yield
    finally:
        _put(model, own)
        model.train()


@torch.no_grad()
def _put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    # Asked for anew each time: a sharded model may still hold the weights that it gathered to
    # compute with, and lets go of them only here.
    live = model.state_dict()
    for name, value in weights.items():
        live[name].copy_(value)


def fingerprint(model: nn.Module) -> str:
    """Of a model's weights: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
