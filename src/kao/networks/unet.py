"""The U-Net of DDPM (Ho et al. 2020, appendix B), with the options later papers gave it.

Down: at each level `blocks` residual blocks, each followed by attention where the feature map
has a size named in `attention`; their outputs are kept.  Middle: block, attention, block.  Up:
the same with one block more a level, each taking one kept output back in.  An optional stem
folds stem x stem pixels into channels (Shi et al. 2016), so that no convolution runs at full
size: on a CPU that buys four times the pictures a second at 32x32.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.errors import ConfigError
from kao.networks.conditions import NOTHING, Conditions, Takes, placed, told
from kao.networks.layers import AttentionBlock, ResidualBlock, group_norm, sinusoids, zeroed
from kao.networks.recompute import Part


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net.  The defaults are DDPM's for CIFAR-10: 35.7 M parameters at 32x32.

    Attributes:
        width: Channels at the first level; even.
        levels: Multiples of `width`, one a level; each level has half the size of the one before.
        blocks: Residual blocks a level on the way down (one more on the way up).
        attention: Feature-map sizes, in pixels after the stem, at which attention is used.
        heads: Attention heads.
        dropout: Share of activations dropped in each residual block, 0..1.
        groups: Groups of each GroupNorm, at most; a power of two.  Groups of two or three channels
            invite a spike that carries a picture's contrast past the norms and shows as a
            speck in the same place of every picture: give narrow networks fewer groups.
        level: How the noise level enters a block: "add" (DDPM) or "film" (scale and shift).
        resample: "conv": strided and nearest-neighbour convolutions (DDPM);
            "residual": inside a residual block of its own (BigGAN, ADM).
        stem: 1, 2 or 4: pixels along a side that are folded into channels.
    """

    width: int = 128
    levels: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    heads: int = 1
    dropout: float = 0.1
    groups: int = 32
    level: Literal["add", "film"] = "add"
    resample: Literal["conv", "residual"] = "conv"
    stem: Literal[1, 2, 4] = 1

    def build(
        self,
        *,
        channels: int,
        size: int,
        outputs: int | None = None,
        takes: Takes = Takes(),
    ) -> "UNet":
        """The network for square pictures.

        Args:
            channels: Of the pictures.
            size: Of the pictures, in pixels.
            outputs: Channels of what it says; None: as many as the pictures have.
            takes: What it can be told beside the noise level.

        Raises:
            ConfigError: The options do not fit each other or the size.
        """
        self.check(size)
        return UNet(
            self,
            channels=channels,
            size=size,
            outputs=outputs or channels,
            takes=takes,
        )

    @property
    def multiple(self) -> int:
        """What the side of every picture it is shown must be a multiple of, pixels."""
        return self.stem * 2 ** (len(self.levels) - 1)

    def sizes(self, size: int) -> list[int]:
        """Feature-map sizes from the first level to the last, for pictures of `size` pixels."""
        return [size // self.stem // 2**i for i in range(len(self.levels))]

    def check(self, size: int) -> None:
        """Raise a ConfigError that says what does not fit, and what would."""
        if min(self.width, self.blocks, self.heads, *self.levels, len(self.levels)) < 1:
            raise ConfigError(
                f"network.width = {self.width}, levels = {list(self.levels)}, blocks = "
                f"{self.blocks} and heads = {self.heads} must all be 1 or more."
            )
        if self.width % 2 or self.width < 4:
            raise ConfigError(
                f"network.width = {self.width}; the sinusoidal embedding needs an even width of "
                f"at least 4: try {max(4, self.width + self.width % 2)}."
            )
        if self.groups not in (1, 2, 4, 8, 16, 32):
            raise ConfigError(f"network.groups = {self.groups}; expected 1, 2, 4, 8, 16 or 32.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"network.dropout = {self.dropout}; expected 0 or more, below 1.")
        factor = self.multiple
        if size % factor:
            raise ConfigError(
                f"network.levels = {list(self.levels)} with stem = {self.stem} needs a size that "
                f"is a multiple of {factor}, and data.size = {size}: try "
                f"{max(1, round(size / factor)) * factor}, or fewer levels."
            )
        sizes = self.sizes(size)
        if unused := [s for s in self.attention if s not in sizes]:
            raise ConfigError(
                f"network.attention names the size {unused[0]}, which no level has at data.size = "
                f"{size}: the feature maps are {sizes} pixels wide."
            )
        for multiple, map_size in zip(self.levels, sizes, strict=True):
            attends = map_size in self.attention or map_size == sizes[-1]
            if attends and self.width * multiple % self.heads:
                raise ConfigError(
                    f"network.heads = {self.heads} must divide the {self.width * multiple} "
                    f"channels at size {map_size}: change heads or width."
                )


class Stage(nn.Module):
    """One entry of the way down or up: a block or a convolution, then attention or nothing.

    Args:
        body: A ResidualBlock, or a module of one argument that changes the size.
        attention: Applied after it.
        joins: Whether a kept output of the way down is put beside the input first.
    """

    def __init__(self, body: nn.Module, attention: nn.Module | None = None, *, joins: bool = False):
        super().__init__()
        self.body = body
        self.attention = attention if attention is not None else nn.Identity()
        self.joins = joins

    def forward(self, h: Tensor, embedding: Tensor, kept: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), (B, E) and, where it joins, (B, K, H, W) to (B, C', H', W')."""
        if kept is not None:
            h = torch.cat([h, kept], dim=1)
        h = self.body(h, embedding) if isinstance(self.body, ResidualBlock) else self.body(h)
        return self.attention(h)


class UNet(nn.Module):
    """A U-Net; see the module's docstring for its shape and UNetConfig for its options.

    Args:
        config: Checked options.
        channels: Of the pictures.
        size: Of the pictures, in pixels; decides where attention goes.
        outputs: Channels of what it says.
        takes: What it can be told beside the noise level.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        channels: int,
        size: int,
        outputs: int,
        takes: Takes,
    ):
        super().__init__()
        self.width, self.stem = config.width, config.stem
        self.takes = takes
        embedding = 4 * config.width
        widths = [config.width * multiple for multiple in config.levels]
        sizes = config.sizes(size)

        def block(inputs: int, outputs: int, resample: nn.Module | None = None) -> ResidualBlock:
            return ResidualBlock(
                inputs,
                outputs,
                embedding=embedding,
                dropout=config.dropout,
                groups=config.groups,
                film=config.level == "film",
                resample=resample,
            )

        def attention(channels: int, at: int) -> nn.Module:
            if at not in config.attention:
                return nn.Identity()
            return AttentionBlock(channels, heads=config.heads, groups=config.groups)

        self.embed = nn.Sequential(
            nn.Linear(config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        seen = takes.channels(channels)
        self.conv_in = nn.Conv2d(seen * config.stem**2, config.width, 3, padding=1)

        # Each kept output goes to exactly one block on the way up; `kept` is the stack of their
        # channels, so that both ways are built from the same list.
        kept = [config.width]
        self.down = nn.ModuleList()
        for i, (width, at) in enumerate(zip(widths, sizes, strict=True)):
            if i > 0:
                if config.resample == "residual":
                    self.down.append(Stage(block(kept[-1], kept[-1], nn.AvgPool2d(2))))
                else:
                    self.down.append(Stage(nn.Conv2d(kept[-1], kept[-1], 3, stride=2, padding=1)))
                kept.append(kept[-1])
            for _ in range(config.blocks):
                self.down.append(Stage(block(kept[-1], width), attention(width, at)))
                kept.append(width)

        self.middle = nn.ModuleList(
            [
                Stage(
                    block(widths[-1], widths[-1]),
                    AttentionBlock(widths[-1], heads=config.heads, groups=config.groups),
                ),
                Stage(block(widths[-1], widths[-1])),
            ]
        )

        current = widths[-1]
        self.up = nn.ModuleList()
        for i, (width, at) in reversed(list(enumerate(zip(widths, sizes, strict=True)))):
            for _ in range(config.blocks + 1):
                joined = block(current + kept.pop(), width)
                self.up.append(Stage(joined, attention(width, at), joins=True))
                current = width
            if i > 0:
                double = nn.Upsample(scale_factor=2, mode="nearest")
                if config.resample == "residual":
                    self.up.append(Stage(block(current, current, double)))
                else:
                    conv = nn.Conv2d(current, current, 3, padding=1)
                    self.up.append(Stage(nn.Sequential(double, conv)))

        self.norm_out = group_norm(current, config.groups)
        self.conv_out = zeroed(nn.Conv2d(current, outputs * config.stem**2, 3, padding=1))

        # Last, so that the weights above are those of the same seed without it.
        self.augmented = takes.augmented(embedding)
        self.classes = takes.named(embedding)

    def forward(self, x: Tensor, label: Tensor, condition: Conditions | None = None) -> Tensor:
        """Map pictures and their noise labels to what the target asks for.

        Args:
            x: (B, C, H, W).
            label: (B,), float32, about 0..1000.
            condition: What it is told beside them; None: nothing.

        Returns:
            (B, outputs, H, W).

        Raises:
            ConfigError: It tells of what the network was not built for.
        """
        given = NOTHING if condition is None else condition
        self.takes.refuse_unheard(given)
        embedding = self.embed(sinusoids(label, self.width))
        embedding = told(embedding, given, augmented=self.augmented, classes=self.classes)
        embedding = F.silu(embedding)

        if self.takes.coordinates:
            x = placed(x, given.where)
        h = self.conv_in(F.pixel_unshuffle(x, self.stem))
        kept = [h]
        for stage in self.down:
            h = stage(h, embedding)
            kept.append(h)

        for stage in self.middle:
            h = stage(h, embedding)

        for stage in self.up:
            h = stage(h, embedding, kept.pop() if stage.joins else None)

        return F.pixel_shuffle(self.head(h), self.stem)

    def head(self, h: Tensor) -> Tensor:
        """Map the last stage's output (B, C, H, W) to (B, outputs * stem^2, H, W)."""
        return self.conv_out(F.silu(self.norm_out(h)))

    def blocks(self) -> list[Part]:
        """The residual blocks."""
        return [Part(module) for module in self.modules() if isinstance(module, ResidualBlock)]

    def parts(self) -> list[Part]:
        """The stages and the head; not the strided convolutions, which keep their input only."""
        stages = (*self.down, *self.middle, *self.up)
        return [
            *(Part(stage) for stage in stages if not isinstance(stage.body, nn.Conv2d)),
            Part(self, "head"),
        ]
