"""Gradient checkpointing: computing again what was not kept (Chen et al. 2016).

A backward pass needs what the forward pass computed.  A part that is recomputed keeps only what
went into it, and runs forward once more when its gradient is asked for: memory falls, and the
step costs up to one forward pass more, a third of its operations.  No number changes: the second
run sees the same inputs and the same precision, and dropout its seeds (see `dropout.seeded`).
"""

from collections.abc import Iterable
from functools import partial
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kao.errors import ConfigError

Mode = Literal["none", "blocks", "all"]


class Part(NamedTuple):
    """A piece of a network that can be run again by itself.

    Attributes:
        owner: The module.
        method: Of `owner`; from tensors to a tensor, without a side effect.
    """

    owner: nn.Module
    method: str = "forward"


@runtime_checkable
class Divided(Protocol):
    """A network that names its parts."""

    def blocks(self) -> Iterable[Part]:
        """Those that keep most: the residual blocks."""

    def parts(self) -> Iterable[Part]:
        """All that keeps more than its inputs; none lies inside another."""


def recompute(network: nn.Module, mode: Mode) -> None:
    """Run parts of a network again in the backward pass, instead of keeping what they computed.

    What is kept for the backward pass:

    * "none": what every layer needs, as torch does by itself.
    * "blocks": of each residual block its inputs; of everything else (attention, resampling, what
      is joined on the way up, the head) what it needs.
    * "all": of each stage (a residual block with the attention behind it, or an upsampling) its
      inputs, with the joining inside; of the head its input.  About one feature map a stage.

    The parts' methods are replaced on the instances, so that parameters, names in the state dict
    and hooks stay as they are; a copy of the network recomputes its own parts.  Without gradients,
    as in drawing, nothing is different.

    Args:
        network: Changed in place; an earlier mode is undone first.
        mode: What to recompute.

    Raises:
        ConfigError: The network does not name its parts: see `Divided`.
    """
    if not isinstance(network, Divided):
        if mode == "none":
            return
        raise ConfigError(
            f'training.gradient_checkpointing = "{mode}", but a {type(network).__name__} does not '
            f'name its parts: set it to "none", or give the network blocks() and parts().'
        )
    for owner, method in (*network.blocks(), *network.parts()):
        vars(owner).pop(method, None)
    chosen: Iterable[Part] = ()
    if mode == "blocks":
        chosen = network.blocks()
    elif mode == "all":
        chosen = network.parts()
    for owner, method in chosen:
        # Not a closure: what copies or pickles the owner must find it in here.
        setattr(owner, method, partial(_twice, owner, method))


def _twice(owner: nn.Module, method: str, *inputs: Tensor | None) -> Tensor:
    """The method of the owner's class, run once more for its gradient."""
    run = partial(getattr(type(owner), method), owner)
    if not torch.is_grad_enabled():
        plain: Tensor = run(*inputs)
        return plain
    output: Tensor = checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
    return output
