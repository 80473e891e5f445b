"""Which weights of a network learn, where not all of them do."""

from collections.abc import Iterable
from typing import Literal

from torch import nn

from kao.errors import ConfigError
from kao.networks.attention import AttentionBlock
from kao.networks.dit import DiT, DiTBlock
from kao.networks.edm2 import MPAttention
from kao.networks.layers import ResidualBlock
from kao.networks.linear_attention import ChannelNorm, MapAttention
from kao.networks.lora import is_adapter
from kao.networks.post_norm import PostNormBlock
from kao.networks.recompute import Divided
from kao.networks.token_attention import CrossAttention, SelfAttention
from kao.networks.unet import Stage

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
        train: "all"; "norms_attention": norms and attention, and the layers that scale and shift
            a norm by the noise level; "lora": adapters, which are on it.
        freeze: The first blocks, in the order of `network.blocks()`, that stay what they were:
            with all that comes before the next one, and what is told of the level and of the
            picture, so that what they compute stays, too.
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
    """The names of the parameters of norms, of what scales them, and of attention."""
    parts: list[nn.Module] = []
    for module in network.modules():
        parts += [module] if isinstance(module, _NORMS_AND_ATTENTION) else _scaling(module)
    chosen = {id(parameter) for part in parts for parameter in part.parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in chosen}


def _scaling(module: nn.Module) -> list[nn.Module]:
    """The layer of a module by which the noise level scales and shifts a norm, if it has one."""
    match module:
        case ResidualBlock():
            return [module.level] if module.film else []
        case PostNormBlock() | DiTBlock():
            return [module.level]
        case DiT():
            return [module.level_out]
    return []


def _first(network: nn.Module, count: int) -> set[str]:
    """The names of all parameters that are used before the block after the first so many."""
    if count == 0:
        return set()
    blocks = list(network.blocks()) if isinstance(network, Divided) else []
    if count >= len(blocks):
        raise ConfigError(
            f"finetune.freeze = {count}, and this {type(network).__name__} has {len(blocks)} "
            f"blocks: freeze {max(0, len(blocks) - 1)} of them at most."
        )
    following = blocks[count].owner
    within = {id(parameter) for parameter in following.parameters()}
    # These were made last, so that a seed gives the same weights without them, and are used early.
    early = ("augmented.", "classes.", *_pyramid(network, following))
    names = {name for name, _ in network.named_parameters() if name.startswith(early)}
    for name, parameter in network.named_parameters():
        if id(parameter) in within:
            break
        names.add(name)
    return names


def _pyramid(network: nn.Module, block: nn.Module) -> list[str]:
    """The beginnings of the names of what brings the picture to the levels down to a block."""
    levels = 0
    for stage in network.modules():
        if isinstance(stage, Stage):
            if any(module is block for module in stage.modules()):
                break
            levels += stage.halves
    return [f"pyramid.{level}." for level in range(levels)]
