"""The small U-Net with linear attention at every level, as small open projects train it.

Convolution, norm, SiLU in this order, with weight-standardised convolutions (Qiao et al. 2019)
before GroupNorm; the noise level scales and shifts the first norm of a block.  Down: at each level
`blocks` residual blocks, the last with linear attention behind it (Katharopoulos et al. 2020; Shen
et al. 2021); what every block says is kept.  Middle: block, full attention, block.  Up: the same
as down, each block taking one kept map back in.  Last, the map of the first convolution joins,
for one more block and a 1x1 convolution.

Every size works.  A map with an odd side is halved to half its size rounded up, its last row or
column repeated first; on the way up a doubled map is cut to the size of the kept one that it will
be joined with, which takes off what was repeated.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from kao.errors import ConfigError
from kao.networks.checks import check_dropout, check_even_width, check_groups
from kao.networks.conditions import NOTHING, Conditions, Takes, placed, told
from kao.networks.embeddings import sinusoids
from kao.networks.layers import zeroed
from kao.networks.linear_attention import MapAttention, Norm
from kao.networks.post_norm import Double, Down, Halve, LinearStage, PostNormBlock
from kao.networks.recompute import Part
from kao.networks.sides import refuse_unfit


@dataclass(frozen=True)
class LinearUNetConfig:
    """The shape of a U-Net with linear attention.

    The defaults are the form with weight-standardised convolutions.  The form with RMS norms
    everywhere is norm = "rms", attention_norm = "rms", standardised = false, memory = 4, and full
    attention at the last level too.

    Attributes:
        width: Channels that `levels` multiplies, and of the sinusoids; even, 4 or more.
        first: Channels of the first convolution's map, even; 0: `width`.
        levels: Multiples of `width` that each level ends in; each level has half the size of the
            one before, rounded up.
        blocks: Residual blocks a level, on the way down and on the way up.
        full_attention: Levels, counted from 0, with full attention in the place of linear.
        heads: Attention heads, the same everywhere.
        head_width: Channels of a head.
        memory: Learned keys and values beside those of the map, in every attention.
        norm: Of the residual blocks: "group" (GroupNorm) or "rms" (over channels).
        groups: Of each GroupNorm, at most; a power of two.
        standardised: Whether the convolutions of the blocks standardise their weights.
        attention_norm: Before every attention and behind the linear ones; see `ChannelNorm`.
        mean_values: Whether linear attention divides its values by the number of positions.
        kernel: Side of the first convolution's kernel; odd.
        down: How a map is halved: "unshuffle" (2x2 pixels into channels, then 1x1 convolution) or
            "conv" (4x4 convolution of stride 2).
        theta: The frequencies of the sinusoids fall from 1 to 1 / theta.
        activation: In the embedding of the noise level: "gelu" or "silu".
        dropout: Share of activations dropped in each residual block, 0..1.
        stem: 1, 2 or 4: pixels along a side that are folded into channels.
    """

    width: int = 64
    first: int = 0
    levels: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 2
    full_attention: tuple[int, ...] = ()
    heads: int = 4
    head_width: int = 32
    memory: int = 0
    norm: Literal["group", "rms"] = "group"
    groups: int = 8
    standardised: bool = True
    attention_norm: Norm = "layer"
    mean_values: bool = False
    kernel: int = 7
    down: Down = "unshuffle"
    theta: float = 10_000.0
    activation: Literal["gelu", "silu"] = "gelu"
    dropout: float = 0.0
    stem: Literal[1, 2, 4] = 1

    def build(
        self,
        *,
        channels: int,
        size: int,
        outputs: int | None = None,
        takes: Takes = Takes(),
    ) -> "LinearUNet":
        """The network for square pictures; it is the same for every size.

        Args:
            channels: Of the pictures.
            size: Of the pictures, in pixels.
            outputs: Channels of what it says; None: as many as the pictures have.
            takes: What it can be told beside the noise level; not tokens.

        Raises:
            ConfigError: The options do not fit each other or the size, or tokens are asked for.
        """
        self.check(size)
        takes.refuse_tokens("linear_unet")
        return LinearUNet(self, channels=channels, outputs=outputs or channels, takes=takes)

    @property
    def multiple(self) -> int:
        """What the side of every picture it is shown must be a multiple of, pixels."""
        return self.stem

    def check(self, size: int) -> None:
        """Raise a ConfigError that says what does not fit, and what would."""
        if min(self.blocks, self.heads, self.head_width, *self.levels, len(self.levels)) < 1:
            raise ConfigError(
                f"network.levels = {list(self.levels)}, blocks = {self.blocks}, heads = "
                f"{self.heads} and head_width = {self.head_width} must all be 1 or more."
            )
        check_even_width(self.width)
        if self.first % 2 or self.first < 0:
            raise ConfigError(
                f"network.first = {self.first}; expected an even number of channels, or 0 for "
                f"those of network.width."
            )
        check_groups(self.groups)
        if self.norm == "rms" and self.groups != LinearUNetConfig.groups:
            raise ConfigError(
                f'network.groups = {self.groups} does nothing with network.norm = "rms", which has '
                f'no groups: leave it at {LinearUNetConfig.groups}, or set norm to "group".'
            )
        if self.mean_values and set(self.full_attention) >= set(range(len(self.levels))):
            raise ConfigError(
                "network.mean_values = true does nothing with full attention at every level: set "
                "it to false, or leave a level out of network.full_attention."
            )
        if self.memory < 0:
            raise ConfigError(f"network.memory = {self.memory}; expected 0 or more.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"network.kernel = {self.kernel}; expected an odd number: 3 or 7.")
        if not 1 < self.theta < math.inf:
            raise ConfigError(
                f"network.theta = {self.theta}; expected a number above 1: 10000 is customary."
            )
        check_dropout(self.dropout)
        if strange := [i for i in self.full_attention if not 0 <= i < len(self.levels)]:
            raise ConfigError(
                f"network.full_attention names the level {strange[0]}, but network.levels has "
                f"{len(self.levels)}, counted from 0."
            )
        if size % self.stem:
            fitting = max(1, round(size / self.stem)) * self.stem
            raise ConfigError(
                f"network.stem = {self.stem} needs a size that is a multiple of {self.stem}, and "
                f"data.size = {size}: try {fitting}, or stem = 1."
            )


class LinearUNet(nn.Module):
    """A U-Net with linear attention; see the module's docstring and LinearUNetConfig.

    Args:
        config: Checked options.
        channels: Of the pictures.
        outputs: Channels of what it says.
        takes: What it can be told beside the noise level.
    """

    def __init__(self, config: LinearUNetConfig, *, channels: int, outputs: int, takes: Takes):
        super().__init__()
        self.width, self.theta, self.stem = config.width, config.theta, config.stem
        self.takes = takes
        embedding = 4 * config.width
        first = config.first or config.width
        widths = [first, *(config.width * multiple for multiple in config.levels)]
        levels = list(pairwise(widths))

        def block(inputs: int, outputs: int) -> PostNormBlock:
            return PostNormBlock(
                inputs,
                outputs,
                embedding=embedding,
                dropout=config.dropout,
                groups=config.groups if config.norm == "group" else 0,
                standardised=config.standardised,
            )

        def attention(channels: int, *, linear: bool) -> MapAttention:
            return MapAttention(
                channels,
                linear=linear,
                heads=config.heads,
                head_width=config.head_width,
                memory=config.memory,
                norm=config.attention_norm,
                mean_values=config.mean_values,
            )

        def stages(inputs: int, outputs: int, level: int) -> list[LinearStage]:
            """The blocks of a level, of which the last attends."""
            linear = level not in config.full_attention
            return [
                LinearStage(
                    block(inputs, outputs),
                    attention(outputs, linear=linear) if i == config.blocks - 1 else None,
                )
                for i in range(config.blocks)
            ]

        self.embed = nn.Sequential(
            nn.Linear(config.width, embedding),
            nn.GELU() if config.activation == "gelu" else nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        seen = takes.channels(channels) * config.stem**2
        self.conv_in = nn.Conv2d(seen, first, config.kernel, padding=config.kernel // 2)

        self.down = nn.ModuleList()
        for i, (above, below) in enumerate(levels):
            self.down.extend(stages(above, above, i))
            if i < len(levels) - 1:
                self.down.append(Halve(above, below, config.down))
            else:
                self.down.append(nn.Conv2d(above, below, 3, padding=1))

        deepest = widths[-1]
        self.middle = nn.ModuleList(
            LinearStage(block(deepest, deepest), mixed)
            for mixed in (attention(deepest, linear=False), None)
        )

        self.up = nn.ModuleList()
        for i, (above, below) in reversed(list(enumerate(levels))):
            self.up.extend(stages(below + above, below, i))
            if i > 0:
                self.up.append(Double(below, above))
            else:
                self.up.append(nn.Conv2d(below, above, 3, padding=1))
        # Joins the map of the first convolution.
        self.up.append(LinearStage(block(2 * first, first)))

        self.conv_out = zeroed(nn.Conv2d(first, outputs * config.stem**2, 1))
        self.augmented = takes.augmented(embedding)
        self.classes = takes.named(embedding)

    def forward(self, x: Tensor, label: Tensor, condition: Conditions | None = None) -> Tensor:
        """Map pictures and their noise labels to what the target asks for.

        Args:
            x: (B, C, H, W), sides of any multiple of the stem.
            label: (B,), float32, about 0..1000.
            condition: What it is told beside them; None: nothing.

        Returns:
            (B, outputs, H, W).

        Raises:
            ConfigError: It tells of what the network was not built for, or the sides do not fit.
        """
        given = NOTHING if condition is None else condition
        self.takes.refuse_unheard(given)
        refuse_unfit(x, self.stem)
        embedding = self.embed(sinusoids(label, self.width, theta=self.theta))
        embedding = told(embedding, given, augmented=self.augmented, classes=self.classes)
        embedding = F.silu(embedding)

        if self.takes.coordinates:
            x = placed(x, given.where)
        h = self.conv_in(F.pixel_unshuffle(x, self.stem))
        kept = [h]
        for stage in self.down:
            if isinstance(stage, LinearStage):
                h = stage(h, embedding)
                kept.append(h)
            else:
                h = stage(h)

        for stage in self.middle:
            h = stage(h, embedding)

        for stage in self.up:
            if isinstance(stage, LinearStage):
                h = stage(h, embedding, kept.pop())
            elif isinstance(stage, Double):
                h = stage(h, kept[-1])
            else:
                h = stage(h)

        return F.pixel_shuffle(self.conv_out(h), self.stem)

    def blocks(self) -> list[Part]:
        """The residual blocks."""
        return [Part(module) for module in self.modules() if isinstance(module, PostNormBlock)]

    def parts(self) -> list[Part]:
        """The stages and what resamples; not plain convolutions, which keep their input only."""
        return [
            Part(stage)
            for stage in (*self.down, *self.middle, *self.up)
            if not isinstance(stage, nn.Conv2d)
        ]
