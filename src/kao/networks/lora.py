"""Low-rank adapters on a network: few weights that learn, beside many that stay (Hu et al. 2022).

A layer W x becomes W x + (alpha / rank) B A x, with A and B of `rank` rows and columns.  B starts
at zero, so the network starts as what it was.  After training the product can be added to W, and
what is left is the plain network again.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kao.errors import ConfigError, MissingExtraError

_BASE = ".base_layer."
_ADAPTER = re.compile(r"\.lora_[AB]\.")


def adapt(network: nn.Module, *, rank: int, alpha: float) -> None:
    """Put adapters on the linear layers and 1x1 convolutions inside of the blocks, in place.

    These are the projections of attention, what the noise level is mapped by in each block, the
    two layers of a transformer's block that work on tokens, and the skips of a U-Net.  What lies
    outside of the blocks gets none, nor do layers that do more with their weights than to multiply
    by them: those of `magnitude`, which keep directions only.

    All other weights keep their values.

    Args:
        network: With its blocks in nn.ModuleLists directly under it.
        rank: Of the products, 1 or more.
        alpha: The product counts alpha / rank times.

    Raises:
        ConfigError: The network has no such layer.
        MissingExtraError: peft is not installed.
    """
    targets = _targets(network)
    if not targets:
        raise ConfigError(
            f"This {type(network).__name__} has no plain linear layer and no plain 1x1 convolution "
            f"in its blocks, and adapters go on no others, such as those that preserve magnitudes: "
            f'set finetune.train = "all" or "norms_attention".'
        )
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
    peft.inject_adapter_in_model(config, network)


def merged(network: nn.Module) -> nn.Module:
    """A copy in which adapters are added to the layers that they are on, and gone.

    Args:
        network: With adapters or without.

    Returns:
        A plain network with the state dict's names of one; it computes the same to rounding.
    """
    plain = copy.deepcopy(network)
    for name, module in list(plain.named_modules()):
        if _is_adapted(module):
            module.merge()
            owner, _, child = name.rpartition(".")
            setattr(plain.get_submodule(owner), child, module.get_base_layer())
    return plain


def begin(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights of a plain network into one that may have adapters, which stay.

    Args:
        module: Changed in place.
        weights: Of every entry of its state dict that is no adapter's, by its name without them.
    """
    named = {name: name.replace(_BASE, ".") for name in module.state_dict() if not is_adapter(name)}
    module.load_state_dict({name: weights[plain] for name, plain in named.items()}, strict=False)


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name is part of an adapter."""
    return bool(_ADAPTER.search(name))


def _targets(network: nn.Module) -> list[str]:
    lists = [name for name, child in network.named_children() if isinstance(child, nn.ModuleList)]
    return [
        name
        for name, module in network.named_modules()
        if name.partition(".")[0] in lists and _takes_one(module)
    ]


def _takes_one(module: nn.Module) -> bool:
    # Subclasses do more with their weights than to multiply by them.
    if type(module) is nn.Conv2d:
        return module.kernel_size == (1, 1) and module.groups == 1
    return type(module) is nn.Linear


def _is_adapted(module: nn.Module) -> Any:
    return any(name == "base_layer" for name, _ in module.named_children())


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", extra="lora", purpose="train adapters (LoRA)") from error
    return peft
