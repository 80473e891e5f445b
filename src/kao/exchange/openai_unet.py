"""The U-Net of improved-diffusion and guided-diffusion: its shape, and its names beside ours.

Both programs (Nichol & Dhariwal 2021; Dhariwal & Nichol 2021) save bare tensors.  Their lists
input_blocks and output_blocks count as our ways down and up do, except that doubling the size
belongs to the output block before it: a second residual block there, or a convolution.  A residual
block that halves looks like any other, so the way up tells where the levels end.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from kao.errors import CheckpointError, ConfigError
from kao.exchange.changes import Extended, Permuted, Pointwise
from kao.exchange.renaming import Rule, Same, layer

_GROUPS = 32
"""Of each norm, whatever its width."""

_OUTPUT = re.compile(r"output_blocks\.(\d+)\.(\d+)\.(in_layers\.0|conv)\.weight")


@dataclass(frozen=True)
class Shape:
    """What the tensors tell of a network.

    Attributes:
        channels: Of the pictures.
        outputs: Of what it says.
        width: Of the sinusoids and of the first layer.
        widths: Channels of each level.
        blocks: Residual blocks a level on the way down.
        attends: Whether each level has attention.
        film: Whether the noise level scales and shifts, in place of adding.
        residual: Whether the size changes inside residual blocks.
        classes: That it is told; 0: none.
    """

    channels: int
    outputs: int
    width: int
    widths: tuple[int, ...]
    blocks: int
    attends: tuple[bool, ...]
    film: bool
    residual: bool
    classes: int

    @property
    def levels(self) -> tuple[int, ...]:
        """Multiples of `width`, one a level."""
        return tuple(width // self.width for width in self.widths)

    def attention(self, size: int) -> tuple[int, ...]:
        """Feature-map sizes with attention, for pictures of `size` pixels."""
        return tuple(size // 2**i for i, attends in enumerate(self.attends) if attends)


def read_shape(state: Mapping[str, Tensor], *, origin: str) -> Shape:
    """The shape of a network from the names and shapes of its tensors.

    Args:
        state: By the names of the other program.
        origin: Where it comes from, for messages.

    Raises:
        CheckpointError: A tensor that every such network has is missing.
        ConfigError: It is a network of this kind that cannot be expressed here.
    """
    try:
        return _shape(state, origin)
    except KeyError as error:
        raise CheckpointError(
            f"{origin} looks like a network of improved-diffusion or guided-diffusion, but "
            f"{error.args[0]} is missing: it is another program's, or a part of a file."
        ) from error


def _shape(state: Mapping[str, Tensor], origin: str) -> Shape:
    if not any(name.startswith("output_blocks.") for name in state):
        raise ConfigError(
            f"{origin} has no way up: it is a classifier of noisy pictures, which draws nothing; "
            f"name the diffusion model that it was made to guide."
        )
    first, width = state["input_blocks.0.0.weight"], state["time_embed.0.weight"].shape[1]
    channels, outputs = first.shape[1], state["out.2.weight"].shape[0]
    # 6 are two pictures of 3, and 6 outputs one picture with its variance.
    if outputs not in (channels, 2 * channels) or channels == 6:
        raise ConfigError(
            f"{origin} sees {channels} channels and says {outputs}: it is told another picture "
            f"beside the noisy one, as networks are that enlarge, and no network here is; name a "
            f"model that draws from noise alone."
        )

    found = [(int(m[1]), int(m[2]), m[3]) for m in map(_OUTPUT.fullmatch, state) if m]
    doubling = {at: kind for at, place, kind in found if place > 0}
    levels, ups = len(doubling) + 1, 1 + max((at for at, _, _ in found), default=0)
    blocks = ups // levels - 1
    downs = {int(name.split(".")[1]) for name in state if name.startswith("input_blocks.")}
    ends = [(blocks + 1) * (i + 1) - 1 for i in range(levels - 1)]
    whole = downs == set(range((blocks + 1) * levels))  # but for halvings without weights
    if sorted(doubling) != ends or not whole or blocks < 1:
        raise ConfigError(
            f"{origin} changes its size without weights (conv_resample = False), or has levels of "
            f"different depths, and no network here does: it cannot be read."
        )

    # A level's blocks, and behind them what halves the size.
    starts = [1 + (blocks + 1) * i for i in range(levels)]
    widths = tuple(state[f"input_blocks.{at}.0.in_layers.2.weight"].shape[0] for at in starts)
    if first.shape[0] != width or any(each % width for each in widths):
        raise ConfigError(
            f"{origin} has levels of {list(widths)} channels on a width of {width}, and here each "
            f"level has a whole multiple of the width: it cannot be expressed."
        )
    if _GROUPS in widths:
        raise ConfigError(
            f"{origin} has norms with {_GROUPS} groups of one channel each, by which a noise level "
            f"that is added would be lost, and no network here has: it cannot be expressed."
        )
    film = state["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0]
    label = state.get("label_emb.weight")
    return Shape(
        channels=channels,
        outputs=outputs,
        width=width,
        widths=widths,
        blocks=blocks,
        attends=tuple(f"input_blocks.{at}.1.qkv.weight" in state for at in starts),
        film=film,
        residual="in_layers.0" in doubling.values(),
        classes=0 if label is None else len(label),
    )


def rules(shape: Shape, *, heads: Mapping[int, int], interleaved: bool) -> list[Rule]:
    """Which tensor of theirs is which of ours.

    Args:
        shape: Of the network.
        heads: Attention heads, by the channels of the level.
        interleaved: Whether the queries, keys and values of a head lie beside each other (the
            "legacy" order), in place of the queries of all heads first.
    """
    # Their embedding has the cosines first, ours the sines.
    half = shape.width // 2
    sines_first = Permuted((*range(half, 2 * half), *range(half)), dim=1)
    found: list[Rule] = [
        *layer("embed.0", "time_embed.0", weight=(sines_first,)),
        *layer("embed.2", "time_embed.2"),
        *layer("conv_in", "input_blocks.0.0"),
        *layer("norm_out", "out.0"),
        *layer("conv_out", "out.2"),
    ]
    if shape.classes:
        found.append(Same("classes.weight", "label_emb.weight", (Extended(1),)))

    def attention(ours: str, theirs: str, width: int) -> Iterator[Rule]:
        order: tuple[Permuted, ...] = ()
        if interleaved:
            order = (_heads_apart(width, heads[width]),)
        yield from layer(f"{ours}.norm", f"{theirs}.norm")
        yield from layer(
            f"{ours}.qkv", f"{theirs}.qkv", weight=(*order, Pointwise(2, 1)), bias=order
        )
        yield from layer(f"{ours}.out", f"{theirs}.proj_out", weight=(Pointwise(2, 1),))

    levels, per_level, current = len(shape.widths), shape.blocks + 1, shape.width
    kept = [current]
    for i, width in enumerate(shape.widths):
        for j in range(shape.blocks):
            at = per_level * i + j
            ours, theirs = f"down.{at}", f"input_blocks.{at + 1}"
            found += _block(f"{ours}.body", f"{theirs}.0", skips=current != width)
            if shape.attends[i]:
                found += attention(f"{ours}.attention", f"{theirs}.1", width)
            current = width
            kept.append(current)
        if i + 1 < levels:
            at = per_level * (i + 1) - 1
            ours, theirs = f"down.{at}.body", f"input_blocks.{at + 1}.0"
            if shape.residual:
                found += _block(ours, theirs, skips=False)
            else:
                found += layer(ours, f"{theirs}.op")
            kept.append(current)

    found += _block("middle.0.body", "middle_block.0", skips=False)
    found += attention("middle.0.attention", "middle_block.1", current)
    found += _block("middle.1.body", "middle_block.2", skips=False)

    at = 0  # ours has a stage of its own for doubling
    for k, i in enumerate(reversed(range(levels))):
        width = shape.widths[i]
        for j in range(per_level):
            theirs = f"output_blocks.{per_level * k + j}"
            found += _block(f"up.{at}.body", f"{theirs}.0", skips=current + kept.pop() != width)
            if shape.attends[i]:
                found += attention(f"up.{at}.attention", f"{theirs}.1", width)
            current = width
            at += 1
        if i > 0:
            doubled = f"{theirs}.{1 + shape.attends[i]}"
            if shape.residual:
                found += _block(f"up.{at}.body", doubled, skips=False)
            else:
                found += layer(f"up.{at}.body.1", f"{doubled}.conv")
            at += 1
    return found


def _block(ours: str, theirs: str, *, skips: bool) -> Iterator[Rule]:
    """The rules of a residual block; `skips`: whether its skip has a layer."""
    yield from layer(f"{ours}.norm_in", f"{theirs}.in_layers.0")
    yield from layer(f"{ours}.conv_in", f"{theirs}.in_layers.2")
    yield from layer(f"{ours}.level", f"{theirs}.emb_layers.1")
    yield from layer(f"{ours}.norm_out", f"{theirs}.out_layers.0")
    yield from layer(f"{ours}.conv_out", f"{theirs}.out_layers.3")
    if skips:
        yield from layer(f"{ours}.skip", f"{theirs}.skip_connection")


def _heads_apart(width: int, heads: int) -> Permuted:
    """From (head, q k v, channel) to (q k v, head, channel)."""
    each = width // heads
    return Permuted(
        tuple(
            (head * 3 + part) * each + channel
            for part in range(3)
            for head in range(heads)
            for channel in range(each)
        )
    )
