"""Which weights of a network learn, where not all of them do."""

from collections.abc import Iterable
from typing import Literal

from torch import nn

from kao.errors import ConfigError
from kao.networks.attention import AttentionBlock
from kao.networks.edm2 import MPAttention
from kao.networks.linear_attention import ChannelNorm, MapAttention
from kao.networks.lora import is_adapter
from kao.networks.recompute import Divided
from kao.networks.token_attention import CrossAttention, SelfAttention

Train = Literal["all", "norms_attention", "lora"]

_NORMS_AND_ATTENTION = (
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    ChannelNorm,
    AttentionBlock,
    CrossAttention,
    MPAttention,
    MapAttention,
    SelfAttention,
)


def choose(
    network: nn.Module, train: Train, *, freeze: int = 0, new: Iterable[str] = ()
) -> list[str]:
    """Let some of a network's parameters learn and no others.

    Args:
        network: Changed in place: `requires_grad` of its parameters.
        train: "all"; "norms_attention": norms and attention; "lora": adapters, which are on it.
        freeze: The first blocks, in the order of `network.blocks()`, that stay what they were:
            with all that comes before the next one, so that what they compute stays, too.
        new: Names of parameters that learn in any case.

    Returns:
        The names of the parameters that learn.

    Raises:
        ConfigError: There are no more blocks than are to be frozen, or nothing would learn.
    """
    wanted = {
        "all": lambda: {name for name, _ in network.named_parameters()},
        "norms_attention": lambda: _norms_and_attention(network),
        "lora": lambda: {name for name, _ in network.named_parameters() if is_adapter(name)},
    }[train]()
    learning = (wanted - _first(network, freeze)) | set(new)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in learning)
    if not learning:
        raise ConfigError(
            f'finetune.train = "{train}" with finetune.freeze = {freeze} leaves nothing of a '
            f'{type(network).__name__} to learn: set finetune.train = "all", or freeze fewer '
            f"blocks."
        )
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def _norms_and_attention(network: nn.Module) -> set[str]:
    return {
        f"{owner}.{name}" if owner else name
        for owner, module in network.named_modules()
        if isinstance(module, _NORMS_AND_ATTENTION)
        for name, _ in module.named_parameters()
    }


def _first(network: nn.Module, count: int) -> set[str]:
    """The names of all parameters before those of the block after the first so many."""
    if count == 0:
        return set()
    blocks = list(network.blocks()) if isinstance(network, Divided) else []
    if count >= len(blocks):
        raise ConfigError(
            f"finetune.freeze = {count}, and this {type(network).__name__} has {len(blocks)} "
            f"blocks: freeze {max(0, len(blocks) - 1)} of them at most."
        )
    within = {id(parameter) for parameter in blocks[count].owner.parameters()}
    names: set[str] = set()
    for name, parameter in network.named_parameters():
        if id(parameter) in within:
            break
        names.add(name)
    return names
