"""The configuration of diffusers' UNet2DModel, and that of our U-Net which computes the same."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from kao.errors import ConfigError
from kao.exchange.options import (
    COUNT,
    NUMBER,
    POSITIVE,
    SHARE,
    SIZE,
    WHOLE,
    WHOLES,
    WORD,
    WORDS,
    YES,
    Option,
    maybe,
    read_options,
)
from kao.networks import UNetConfig

CLASS = "UNet2DModel"

_OPTIONS: Mapping[str, Option] = {
    "sample_size": Option(None, maybe(SIZE)),
    "in_channels": Option(3, WHOLE),
    "out_channels": Option(3, WHOLE),
    "center_input_sample": Option(False, YES),
    "time_embedding_type": Option("positional", WORD),
    "time_embedding_dim": Option(None, maybe(WHOLE)),
    "freq_shift": Option(0, NUMBER),
    "flip_sin_to_cos": Option(True, YES),
    "down_block_types": Option(["DownBlock2D", *["AttnDownBlock2D"] * 3], WORDS),
    "mid_block_type": Option("UNetMidBlock2D", maybe(WORD)),
    "up_block_types": Option([*["AttnUpBlock2D"] * 3, "UpBlock2D"], WORDS),
    "block_out_channels": Option([224, 448, 672, 896], WHOLES),
    "layers_per_block": Option(2, WHOLE),
    "mid_block_scale_factor": Option(1, NUMBER),
    "downsample_padding": Option(1, NUMBER),
    "downsample_type": Option("conv", maybe(WORD)),
    "upsample_type": Option("conv", maybe(WORD)),
    "dropout": Option(0.0, SHARE),
    "act_fn": Option("silu", WORD),
    "attention_head_dim": Option(8, maybe(WHOLE)),
    "norm_num_groups": Option(32, WHOLE),
    "attn_norm_num_groups": Option(None, maybe(WHOLE)),
    "norm_eps": Option(1e-5, POSITIVE),
    "resnet_time_scale_shift": Option("default", WORD),
    "add_attention": Option(True, YES),
    "class_embed_type": Option(None, maybe(WORD)),
    "num_class_embeds": Option(None, maybe(COUNT)),
    "num_train_timesteps": Option(None, maybe(WHOLE)),
}
"""The options of UNet2DModel, with the values that it gives those that are left out, and kinds."""

_ONLY: Mapping[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "freq_shift": (0, 1),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet", None),
    "upsample_type": ("conv", "resnet", None),
    "resnet_time_scale_shift": ("default", "scale_shift"),
}
"""Values of options that our U-Net has, where it has not all."""

_PLAIN, _ATTENDING, _RESIDUAL = range(3)
_DOWN = {"DownBlock2D": _PLAIN, "AttnDownBlock2D": _ATTENDING, "ResnetDownsampleBlock2D": _RESIDUAL}
_UP = {"UpBlock2D": _PLAIN, "AttnUpBlock2D": _ATTENDING, "ResnetUpsampleBlock2D": _RESIDUAL}


@dataclass(frozen=True)
class Described:
    """What a UNet2DModel's configuration tells.

    Attributes:
        network: Its shape here.
        channels: Of the pictures.
        outputs: Of what it says.
        size: Of the pictures, pixels.
        classes: That it is told; 0: none.
        flipped: Whether the cosines of the noise level come before the sines.
    """

    network: UNetConfig
    channels: int
    outputs: int
    size: int
    classes: int
    flipped: bool


def read_config(table: Mapping[str, Any], *, size: int | None = None) -> Described:
    """Our shape of a UNet2DModel.

    Args:
        table: Of its config.json.
        size: Of the pictures, for configurations that do not tell it.

    Raises:
        ConfigError: It has an option that our U-Net has not; the message names the key.
    """
    told = {key: value for key, value in table.items() if not key.startswith("_")}
    for key, value in told.items():
        if key not in _OPTIONS and value is not None:
            raise ConfigError(f"{key} = {value!r} is no option of a {CLASS} that is known here.")
    told = read_options(told, _OPTIONS, file="config.json")
    for key, values in _ONLY.items():
        if told[key] not in values:
            raise _refused(key, told[key], _or(values))
    side = _side(told["sample_size"], size)
    channels, outputs = told["in_channels"], told["out_channels"]
    if outputs not in (channels, 2 * channels):
        raise _refused("out_channels", outputs, f"{channels}, or {2 * channels} with a variance")
    widths = list(told["block_out_channels"])
    width = widths[0]
    if any(each % width for each in widths):
        raise _refused("block_out_channels", widths, f"multiples of the first, {width}")
    if told["time_embedding_dim"] not in (None, 4 * width):
        raise _refused("time_embedding_dim", told["time_embedding_dim"], f"{4 * width}")
    attends, residual = _blocks(told, len(widths))
    resample: Literal["conv", "conv_right", "residual"] = "residual"
    if not residual:
        resample = "conv" if told["downsample_padding"] else "conv_right"
    network = UNetConfig(
        width=width,
        levels=tuple(each // width for each in widths),
        blocks=told["layers_per_block"],
        attention=tuple(side // 2**i for i, here in enumerate(attends) if here),
        heads=1,
        head_width=told["attention_head_dim"] or 0,
        middle_attention=told["add_attention"],
        dropout=told["dropout"],
        groups=told["norm_num_groups"],
        norm_eps=told["norm_eps"],
        level="film" if told["resnet_time_scale_shift"] == "scale_shift" else "add",
        embedding="ddpm" if told["freq_shift"] else "adm",
        resample=resample,
    )
    network.check(side)
    _check_norms(told, network, size=side)
    return Described(
        network=network,
        channels=channels,
        outputs=outputs,
        size=side,
        classes=told["num_class_embeds"] or 0,
        flipped=told["flip_sin_to_cos"],
    )


def _side(told: Any, said: int | None) -> int:
    """The side of the pictures, pixels."""
    if isinstance(told, list | tuple) and len(set(told)) == 1:
        told = told[0]
    if told is None:
        if said is None:
            raise ConfigError(
                "sample_size is left out of the network's configuration: give size=PIXELS."
            )
        return said
    if not isinstance(told, int):
        raise _refused("sample_size", told, "pixels along a side, of square pictures")
    if said not in (None, told):
        raise ConfigError(f"size = {said}, but the network's sample_size is {told}: leave it out.")
    return told


def _blocks(told: Mapping[str, Any], levels: int) -> tuple[list[bool], bool]:
    """Which levels attend, and whether sizes change inside residual blocks.

    Raises:
        ConfigError: The ways down and up differ, or the levels do.
    """
    kinds = {}
    for key, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
        names = [name.removeprefix("UNetRes") for name in told[key]]
        if len(names) != levels or (strange := [name for name in names if name not in known]):
            met = strange[0] if len(names) == levels else f"{len(names)} of them"
            raise _refused(key, met, f"{levels} of {_or(known)}")
        kinds[key] = [known[name] for name in names]
    down, up = kinds["down_block_types"], kinds["up_block_types"][::-1]
    attends = [kind == _ATTENDING for kind in down]
    if attends != [kind == _ATTENDING for kind in up]:
        raise _refused(
            "up_block_types", told["up_block_types"], "attention at the sizes of the way down"
        )
    # The last level down and the last one up change no size, whatever they are called.
    inside = {
        *_inside(down[:-1], told["downsample_type"]),
        *_inside(up[1:], told["upsample_type"]),
    }
    if len(inside) > 1:
        key = "downsample_type" if _ATTENDING in down[:-1] else "down_block_types"
        raise _refused(
            key, told[key], "sizes that change in one way everywhere, by convolutions or in blocks"
        )
    return attends, inside == {True}


def _inside(kinds: Iterable[int], of_attending: str | None) -> set[bool]:
    """Whether sizes change inside residual blocks, at each level."""
    return {of_attending == "resnet" if kind == _ATTENDING else kind == _RESIDUAL for kind in kinds}


def _check_norms(told: Mapping[str, Any], network: UNetConfig, *, size: int) -> None:
    """Raise a ConfigError where norms have another number of groups here, or are missing there."""
    groups = told["norm_num_groups"]
    if (found := norm_groups(network, size=size)) != {groups}:
        raise _refused(
            "norm_num_groups", groups, f"groups of two channels or more, here {min(found)} at most"
        )
    of_middle = told["attn_norm_num_groups"]
    if network.middle_attention and of_middle != groups:
        # Left out, there is no norm before the attention of the middle, but for "default".
        if of_middle is not None or network.level == "film":
            raise _refused("attn_norm_num_groups", of_middle, f"{groups}, as norm_num_groups")


def norm_groups(network: UNetConfig, *, size: int) -> set[int]:
    """The numbers of groups that the norms of a U-Net have."""
    with torch.device("meta"):
        built = network.build(channels=1, size=size)
    return {module.num_groups for module in built.modules() if isinstance(module, nn.GroupNorm)}


def write_config(
    network: UNetConfig, *, channels: int, outputs: int, size: int, classes: int = 0
) -> dict[str, Any]:
    """The config.json of a UNet2DModel that computes what our U-Net does.

    Args:
        network: Our shape.
        channels: Of the pictures.
        outputs: Of what it says.
        size: Of the pictures, pixels.
        classes: That it is told; 0: none.

    Raises:
        ConfigError: It has an option that UNet2DModel has not; the message names the key and the
            value that it has.
    """
    plain = {
        "stem": 1,
        "up_attention": "every",
        "qk_norm": False,
        "label_scale": 1.0,
        "resample_filter": "box",
        "skip_scale": 1.0,
        "input_pyramid": False,
    }
    missing = {key: str(value) for key, value in plain.items() if getattr(network, key) != value}
    if network.embedding == "fourier":
        missing["embedding"] = "ddpm or adm"
    if network.resample == "projected":
        missing["resample"] = "conv, conv_right or residual"
    if len(groups := norm_groups(network, size=size)) > 1:
        missing["groups"] = f"{min(groups)}, which all widths can have"
    attends = [side in network.attention for side in network.sizes(size)]
    widths = _attending_widths(network, attends)
    if network.heads > 1 and len(widths) > 1:
        missing["heads"] = "1, or network.head_width in its place"
    if missing:
        raise ConfigError(_no_place(network, missing))
    residual = network.resample == "residual"
    without = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    down, up = without if residual else ("DownBlock2D", "UpBlock2D")
    kind = "resnet" if residual else "conv"
    return {
        "_class_name": CLASS,
        "sample_size": size,
        "in_channels": channels,
        "out_channels": outputs,
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "freq_shift": 1 if network.embedding == "ddpm" else 0,
        "flip_sin_to_cos": False,
        "down_block_types": ["AttnDownBlock2D" if here else down for here in attends],
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ["AttnUpBlock2D" if here else up for here in reversed(attends)],
        "block_out_channels": [network.width * multiple for multiple in network.levels],
        "layers_per_block": network.blocks,
        "mid_block_scale_factor": 1,
        "downsample_padding": 0 if network.resample == "conv_right" else 1,
        "downsample_type": kind,
        "upsample_type": kind,
        "dropout": network.dropout,
        "act_fn": "silu",
        "attention_head_dim": _head_width(network, widths),
        "norm_num_groups": min(groups),
        "attn_norm_num_groups": min(groups),
        "norm_eps": network.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if network.level == "film" else "default",
        "add_attention": network.middle_attention,
        "class_embed_type": None,
        "num_class_embeds": classes or None,
    }


def _attending_widths(network: UNetConfig, attends: list[bool]) -> set[int]:
    """Channels of the levels that have attention."""
    pairs = zip(network.levels, attends, strict=True)
    widths = {network.width * multiple for multiple, here in pairs if here}
    if network.middle_attention:
        widths.add(network.width * network.levels[-1])
    return widths


def _head_width(network: UNetConfig, widths: set[int]) -> int | None:
    """Channels of a head, which UNet2DModel counts heads by; None: one head of all channels."""
    if network.head_width:
        return network.head_width
    if network.heads == 1 or not widths:
        return None
    return min(widths) // network.heads


def _or(values: Iterable[Any]) -> str:
    return " or ".join(str(value) for value in values)


def _refused(key: str, value: Any, expected: str) -> ConfigError:
    """An error for an option of theirs that is missing here."""
    return ConfigError(
        f"{key} = {value!r} of this {CLASS} cannot be expressed here; expected {expected}."
    )


def _no_place(network: UNetConfig, missing: Mapping[str, str]) -> str:
    """What is said of options of ours that are missing there, with what there is, by their keys."""
    told = "; ".join(
        f"network.{key} = {getattr(network, key)} (there: {value})"
        for key, value in missing.items()
    )
    return (
        f"diffusers' {CLASS} has no place for {told}: choose another form to export to, or train "
        f"with what there is."
    )
