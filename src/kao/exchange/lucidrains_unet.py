"""The U-Net of denoising_diffusion_pytorch: its shape, and its names beside ours.

The network has changed over the versions.  Names tell most of it:

    0.29 to 0.32   attention inside two wrappers (fn.fn); 4x4 convolutions halve the size
    1.0  to 1.7    the same, with 2x2 pixels folded into channels
    1.8            no wrappers
    1.9  to 1.11   learned keys and values (mem_kv)
    2.0            norms with a gain alone in the residual blocks, too

What the wrapped networks compute has changed with the same names; see `Generation`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from kao.errors import CheckpointError, ConfigError
from kao.exchange.changes import Change, Reshaped, Transposed
from kao.exchange.renaming import Rule, Same, layer

Version = tuple[int, ...]


@dataclass(frozen=True)
class Generation:
    """What names do not tell of a network, by the version of the package.

    Attributes:
        standardised: Whether the blocks' convolutions standardise their weights.
        layer_norm: Whether the norms around attention take the mean away.
        mean_values: Whether linear attention divides its values by the number of positions.
    """

    standardised: bool = False
    layer_norm: bool = False
    mean_values: bool = False

    @classmethod
    def of(cls, version: Version) -> "Generation":
        """That of a version of the package, 0.29 or later."""
        return cls(
            standardised=version < (1, 7, 2),
            layer_norm=version < (1, 7),
            mean_values=version < (1, 7, 4),
        )


@dataclass(frozen=True)
class Shape:
    """What the tensors tell of a network.

    Attributes:
        channels: Of the pictures.
        outputs: Of what it says.
        width: Of the sinusoids.
        first: Channels of the first convolution's map.
        widths: Channels that each level ends in.
        kernel: Side of the first convolution's kernel.
        full_attention: Levels with full attention.
        hidden: Channels of all attention heads together.
        heads: Attention heads; 0: not told.
        memory: Learned keys and values.
        wrapped: Whether attention lies inside wrappers.
        folded: Whether pixels are folded into channels where the size is halved.
        grouped: Whether the blocks have GroupNorm.
    """

    channels: int
    outputs: int
    width: int
    first: int
    widths: tuple[int, ...]
    kernel: int
    full_attention: tuple[int, ...]
    hidden: int
    heads: int
    memory: int
    wrapped: bool
    folded: bool
    grouped: bool

    @property
    def levels(self) -> tuple[int, ...]:
        """Multiples of `width`, one a level."""
        return tuple(width // self.width for width in self.widths)


def read_shape(state: Mapping[str, Tensor], *, origin: str) -> Shape:
    """The shape of a network from the names and shapes of its tensors.

    Args:
        state: The bare network's, by the names of the package.
        origin: Where it comes from, for messages.

    Raises:
        CheckpointError: A tensor that every such network has is missing.
        ConfigError: It is a network of this kind that cannot be expressed here.
    """
    try:
        return _shape(state, origin)
    except KeyError as error:
        raise CheckpointError(
            f"{origin} looks like a network of denoising_diffusion_pytorch, but {error.args[0]} is "
            f"missing: it is of another version than 0.29 to 2.3, or a part of a file."
        ) from error


def _shape(state: Mapping[str, Tensor], origin: str) -> Shape:
    if "time_mlp.0.weights" in state:
        raise ConfigError(
            f"{origin} has random or learned frequencies in its embedding of the time "
            f"(random_fourier_features, learned_sinusoidal_cond), and no network here has: it "
            f"cannot be read."
        )
    first, embedding = state["init_conv.weight"], state["time_mlp.1.weight"]
    outputs, seen, width = len(state["final_conv.weight"]), first.shape[1], embedding.shape[1]
    if outputs not in (seen, 2 * seen):
        raise ConfigError(
            f"{origin} sees {seen} channels and says {outputs}: it is told its own last prediction "
            f"(self_condition), and no network here is."
        )
    count = 1 + max(int(m[1]) for m in (re.match(r"downs\.(\d+)\.", name) for name in state) if m)
    folded = count == 1 or "downs.0.3.1.weight" in state
    last = count - 1
    fold = ".1" if folded else ""
    widths = [len(state[f"downs.{i}.3{fold}.weight"]) for i in range(last)]
    widths.append(len(state[f"downs.{last}.3.weight"]))
    if any(each % width for each in widths):
        raise ConfigError(
            f"{origin} has levels of {widths} channels on a width of {width}, and here each level "
            f"has a whole multiple of the width: it cannot be expressed."
        )

    inner = ".fn.fn" if (wrapped := "mid_attn.fn.fn.to_qkv.weight" in state) else ""
    spots = (*(f"downs.{i}.2{inner}" for i in range(count)), f"mid_attn{inner}")
    hidden = {len(state[f"{spot}.to_qkv.weight"]) // 3 for spot in spots}
    kept = [state[name] for spot in spots if (name := f"{spot}.mem_kv") in state]
    if len(hidden) > 1 or len({memory.shape[1] for memory in kept}) > 1:
        raise ConfigError(
            f"{origin} has other attention heads at other levels, and here they are the same "
            f"everywhere: it cannot be expressed."
        )
    return Shape(
        channels=seen,
        outputs=outputs,
        width=width,
        first=len(first),
        widths=tuple(widths),
        kernel=first.shape[-1],
        full_attention=tuple(i for i in range(count) if f"{spots[i]}.to_out.weight" in state),
        hidden=hidden.pop(),
        heads=kept[-1].shape[1] if kept else 0,
        memory=kept[-1].shape[2] if kept else 0,  # that of full attention, in the middle
        wrapped=wrapped,
        folded=folded,
        grouped="downs.0.0.block1.norm.weight" in state,
    )


def rules(shape: Shape) -> list[Rule]:
    """Which tensor of theirs is which of ours."""
    widths = (shape.first, *shape.widths)
    levels = list(enumerate(pairwise(widths)))
    found: list[Rule] = [
        *layer("conv_in", "init_conv"),
        *layer("embed.0", "time_mlp.1"),
        *layer("embed.2", "time_mlp.3"),
    ]

    def block(ours: str, theirs: str, inputs: int, outputs: int) -> Iterator[Rule]:
        yield from layer(f"{ours}.level", f"{theirs}.mlp.1")
        for half, side in (("block1", "in"), ("block2", "out")):
            yield from layer(f"{ours}.conv_{side}", f"{theirs}.{half}.proj")
            if shape.grouped:
                yield from layer(f"{ours}.norm_{side}", f"{theirs}.{half}.norm")
            else:
                yield _gain(f"{ours}.norm_{side}", f"{theirs}.{half}.norm", outputs)
        if inputs != outputs:
            yield from layer(f"{ours}.skip", f"{theirs}.res_conv")

    def attention(ours: str, theirs: str, channels: int, *, full: bool) -> Iterator[Rule]:
        outer = f"{theirs}.fn" if shape.wrapped else theirs
        theirs = f"{theirs}.fn.fn" if shape.wrapped else theirs
        yield _gain(f"{ours}.norm_in", f"{outer}.norm", channels)
        yield Same(f"{ours}.qkv.weight", f"{theirs}.to_qkv.weight")
        if shape.memory:
            # Keys and values of full attention are listed by position, the others by channel.
            turned: tuple[Change, ...] = (Transposed(),) if full else ()
            yield Same(f"{ours}.memory", f"{theirs}.mem_kv", turned)
        if full:
            yield from layer(f"{ours}.out", f"{theirs}.to_out")
        else:
            yield from layer(f"{ours}.out", f"{theirs}.to_out.0")
            yield _gain(f"{ours}.norm_out", f"{theirs}.to_out.1", channels)

    last = len(levels) - 1
    for i, (above, _) in levels:
        ours, theirs = 3 * i, f"downs.{i}"
        found += block(f"down.{ours}.block", f"{theirs}.0", above, above)
        found += block(f"down.{ours + 1}.block", f"{theirs}.1", above, above)
        full = i in shape.full_attention
        found += attention(f"down.{ours + 1}.attention", f"{theirs}.2", above, full=full)
        if i < last:
            fold = ".1" if shape.folded else ""
            found += layer(f"down.{ours + 2}.conv", f"{theirs}.3{fold}")
        else:
            found += layer(f"down.{ours + 2}", f"{theirs}.3")

    deepest = widths[-1]
    found += block("middle.0.block", "mid_block1", deepest, deepest)
    found += attention("middle.0.attention", "mid_attn", deepest, full=True)
    found += block("middle.1.block", "mid_block2", deepest, deepest)

    for k, (i, (above, below)) in enumerate(reversed(levels)):
        ours, theirs = 3 * k, f"ups.{k}"
        found += block(f"up.{ours}.block", f"{theirs}.0", below + above, below)
        found += block(f"up.{ours + 1}.block", f"{theirs}.1", below + above, below)
        full = i in shape.full_attention
        found += attention(f"up.{ours + 1}.attention", f"{theirs}.2", below, full=full)
        if i > 0:
            found += layer(f"up.{ours + 2}.conv", f"{theirs}.3.1")
        else:
            found += layer(f"up.{ours + 2}", f"{theirs}.3")
    end = f"up.{3 * len(levels)}.block"
    found += block(end, "final_res_block", 2 * shape.first, shape.first)
    found += layer("conv_out", "final_conv")
    return found


def _gain(ours: str, theirs: str, channels: int) -> Rule:
    """The gain of a norm, which theirs keeps in the shape of a map of one pixel."""
    return Same(f"{ours}.gain", f"{theirs}.g", (Reshaped((channels,), (1, channels, 1, 1)),))
