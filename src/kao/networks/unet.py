"""The U-Net of DDPM (Ho et al. 2020, appendix B), with the options later papers gave it.

Down: at each level `blocks` residual blocks, each followed by attention where the feature map
has a size named in `attention`; their outputs are kept.  Middle: block, attention, block.  Up:
the same with one block more a level, each taking one kept output back in.  An optional stem
folds stem x stem pixels into channels (Shi et al. 2016), so that no convolution runs at full
size: on a CPU that buys four times the pictures a second at 32x32.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kao.networks.attention import AttentionBlock
from kao.networks.conditions import NOTHING, Conditions, Takes, placed, told
from kao.networks.embeddings import Fourier, Sinusoids
from kao.networks.layers import ResidualBlock, added, group_norm, zeroed
from kao.networks.recompute import Part
from kao.networks.resampling import (
    doubling,
    doubling_conv,
    filtered_conv,
    halving,
    halving_conv,
)
from kao.networks.sides import refuse_unfit

if TYPE_CHECKING:
    # Only named here: the configuration builds the network.
    from kao.networks.unet_config import UNetConfig


class Stage(nn.Module):
    """One entry of the way down or up: a block or a convolution, then attention or nothing.

    Args:
        body: A ResidualBlock, or a module of one argument that changes the size.
        attention: Applied after it.
        joins: Whether a kept output of the way down is put beside the input first.
        halves: Whether it starts a new level of the way down.
    """

    def __init__(
        self,
        body: nn.Module,
        attention: nn.Module | None = None,
        *,
        joins: bool = False,
        halves: bool = False,
    ):
        super().__init__()
        self.body = body
        self.attention = attention if attention is not None else nn.Identity()
        self.joins, self.halves = joins, halves

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
        config: "UNetConfig",
        *,
        channels: int,
        size: int,
        outputs: int,
        takes: Takes,
    ):
        super().__init__()
        self.stem, self.skip_scale, self.takes = config.stem, config.skip_scale, takes
        self.multiple = config.multiple
        self.label_scale = config.label_scale
        embedding = 4 * config.width
        widths = [config.width * multiple for multiple in config.levels]
        sizes = config.sizes(size)
        inside = config.resample in ("residual", "projected")

        def block(inputs: int, outputs: int, resample: nn.Module | None = None) -> ResidualBlock:
            return ResidualBlock(
                inputs,
                outputs,
                embedding=embedding,
                dropout=config.dropout,
                groups=config.groups,
                film=config.level == "film",
                resample=resample,
                projected=resample is not None and config.resample == "projected",
                eps=config.norm_eps,
                skip_scale=config.skip_scale,
            )

        def attention(channels: int, *, used: bool) -> nn.Module | None:
            if not used:
                return None
            return AttentionBlock(
                channels,
                heads=config.heads_of(channels),
                groups=config.groups,
                eps=config.norm_eps,
                skip_scale=config.skip_scale,
                qk_norm=config.qk_norm,
            )

        features = config.width
        self.features: nn.Module
        if config.embedding == "fourier":
            features = 2 * config.width
            self.features = Fourier(features)
        else:
            self.features = Sinusoids(features, endpoint=config.embedding == "ddpm")
        self.embed = nn.Sequential(
            nn.Linear(features, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        seen = takes.channels(channels) * config.stem**2
        self.conv_in = nn.Conv2d(seen, config.width, 3, padding=1)

        # Each kept output goes to exactly one block on the way up; `kept` is the stack of their
        # channels, so that both ways are built from the same list.
        kept = [config.width]
        self.down = nn.ModuleList()
        for i, (width, at) in enumerate(zip(widths, sizes, strict=True)):
            if i > 0:
                smaller: nn.Module
                if inside:
                    smaller = block(kept[-1], kept[-1], halving(config.resample_filter))
                else:
                    smaller = halving_conv(kept[-1], right=config.resample == "conv_right")
                self.down.append(Stage(smaller, halves=True))
                kept.append(kept[-1])
            for _ in range(config.blocks):
                plain = block(kept[-1], width)
                self.down.append(Stage(plain, attention(width, used=at in config.attention)))
                kept.append(width)
        entered = [kept[i + 1] for i, stage in enumerate(self.down) if stage.halves]

        last = widths[-1]
        self.middle = nn.ModuleList(
            [
                Stage(block(last, last), attention(last, used=config.middle_attention)),
                Stage(block(last, last)),
            ]
        )

        current = last
        self.up = nn.ModuleList()
        for i, (width, at) in reversed(list(enumerate(zip(widths, sizes, strict=True)))):
            for j in range(config.blocks + 1):
                here = config.up_attention == "every" or j == config.blocks
                joined = block(current + kept.pop(), width)
                attends = attention(width, used=here and at in config.attention)
                self.up.append(Stage(joined, attends, joins=True))
                current = width
            if i > 0:
                larger: nn.Module
                if inside:
                    larger = block(current, current, doubling(config.resample_filter))
                else:
                    larger = doubling_conv(current)
                self.up.append(Stage(larger))

        self.norm_out = group_norm(current, config.groups, eps=config.norm_eps)
        self.conv_out = zeroed(nn.Conv2d(current, outputs * config.stem**2, 3, padding=1))

        self.pyramid = nn.ModuleList()
        if config.input_pyramid:
            for inputs, width in zip((seen, *entered[:-1]), entered, strict=True):
                self.pyramid.append(filtered_conv(inputs, width, config.resample_filter))

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
            ConfigError: It tells of what the network was not built for, or the sides do not fit.
        """
        given = NOTHING if condition is None else condition
        self.takes.refuse_unheard(given)
        refuse_unfit(x, self.multiple)
        embedding = self.embed(self.features(label * self.label_scale))
        embedding = told(embedding, given, augmented=self.augmented, classes=self.classes)
        embedding = F.silu(embedding)

        if self.takes.coordinates:
            x = placed(x, given.where)
        seen = F.pixel_unshuffle(x, self.stem)
        h = self.conv_in(seen)
        kept = [h]
        level = 0
        for stage in self.down:
            h = stage(h, embedding)
            if stage.halves and self.pyramid:
                seen = h = added(h, self.pyramid[level](seen), self.skip_scale)
                level += 1
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
            *(Part(stage) for stage in stages if not _strided(stage)),
            *(Part(smaller) for smaller in self.pyramid),
            Part(self, "head"),
        ]


def _strided(stage: Stage) -> bool:
    """Whether all that a stage does is to convolve at every second pixel, padded or not."""
    return stage.halves and not isinstance(stage.body, ResidualBlock)
