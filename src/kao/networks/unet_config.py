"""The options of the U-Net, and what of them fits together."""

import math
from dataclasses import dataclass
from typing import Literal

from kao.errors import ConfigError
from kao.networks.checks import check_dropout, check_even_width, check_groups
from kao.networks.conditions import Takes
from kao.networks.resampling import Filter
from kao.networks.sides import check_sizes, level_sizes
from kao.networks.unet import UNet


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net.  The defaults are DDPM's for CIFAR-10: 35.7 M parameters at 32x32.

    Other published networks are other values: ADM (Dhariwal & Nichol 2021) has head_width = 64,
    level = "film", resample = "residual", embedding = "adm"; DDPM++ and NCSN++ (Song et al. 2021b)
    have up_attention = "last", resample = "projected", skip_scale = sqrt(1/2), norm_eps = 1e-6, and
    NCSN++ resample_filter = "fir", embedding = "fourier" and input_pyramid = true beside.

    Attributes:
        width: Channels at the first level; even.
        levels: Multiples of `width`, one a level; each level has half the size of the one before.
        blocks: Residual blocks a level on the way down (one more on the way up).
        attention: Feature-map sizes, in pixels after the stem, at which attention is used.
        heads: Attention heads, everywhere.
        head_width: Channels of an attention head, of which there are as many as fit; 0: `heads`.
        middle_attention: Whether there is attention between the two blocks of the middle.
        up_attention: Blocks that attend on the way up, at the sizes of `attention`: "every" one,
            or the "last" of its level (Song et al. 2021b).
        qk_norm: Normalise the queries and keys of each head: see `AttentionBlock`.
        dropout: Share of activations dropped in each residual block, 0..1.
        groups: Groups of each GroupNorm, at most; a power of two.  Groups of two or three channels
            invite a spike that carries a picture's contrast past the norms and shows as a
            speck in the same place of every picture: give narrow networks fewer groups.
        norm_eps: Added to variances in each GroupNorm.
        level: How the noise level enters a block: "add" (DDPM) or "film" (scale and shift).
        embedding: What the noise level is before it enters: sines and cosines with the frequencies
            of "ddpm" (Ho et al. 2020), of "adm" (Nichol & Dhariwal 2021; see `sinusoids`), or of
            "fourier" (Song et al. 2021b; see `Fourier`), which are twice as many.
        label_scale: What the noise label is multiplied by first, above 0: 0.25 for a chain of 4000
            steps whose network was told 0..1000.
        resample: "conv": strided and nearest-neighbour convolutions (DDPM);
            "conv_right": the same, padded right and below only, as Ho et al. (2020) ran it;
            "residual": inside a residual block of its own (BigGAN, ADM);
            "projected": that, with a 1 x 1 convolution on its skip (DDPM++, NCSN++).
        resample_filter: Of "residual" and "projected": "box", or "fir" with [1, 3, 3, 1].
        skip_scale: What the sum of each skip and its branch is multiplied by, above 0 and up to 1;
            sqrt(1/2) keeps the variance.
        input_pyramid: Add the picture itself, convolved and halved again and again, at each level
            of the way down (the "residual" input of NCSN++).
        stem: 1, 2 or 4: pixels along a side that are folded into channels.
    """

    width: int = 128
    levels: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    heads: int = 1
    head_width: int = 0
    middle_attention: bool = True
    up_attention: Literal["every", "last"] = "every"
    qk_norm: bool = False
    dropout: float = 0.1
    groups: int = 32
    norm_eps: float = 1e-5
    level: Literal["add", "film"] = "add"
    embedding: Literal["ddpm", "adm", "fourier"] = "ddpm"
    label_scale: float = 1.0
    resample: Literal["conv", "conv_right", "residual", "projected"] = "conv"
    resample_filter: Filter = "box"
    skip_scale: float = 1.0
    input_pyramid: bool = False
    stem: Literal[1, 2, 4] = 1

    def build(
        self,
        *,
        channels: int,
        size: int,
        outputs: int | None = None,
        takes: Takes = Takes(),
    ) -> UNet:
        """The network for square pictures.

        Args:
            channels: Of the pictures.
            size: Of the pictures, in pixels.
            outputs: Channels of what it says; None: as many as the pictures have.
            takes: What it can be told beside the noise level; no tokens.

        Raises:
            ConfigError: The options do not fit each other or the size, or it is to read tokens.
        """
        self.check(size)
        takes.refuse_tokens("unet")
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
        return level_sizes(size, stem=self.stem, levels=len(self.levels))

    def heads_of(self, channels: int) -> int:
        """Attention heads of a feature map with so many channels."""
        return channels // self.head_width if self.head_width else self.heads

    def check(self, size: int) -> None:
        """Raise a ConfigError that says what does not fit, and what would."""
        self._check_numbers()
        self._check_dead_options()
        check_sizes(size, stem=self.stem, levels=self.levels, attention=self.attention)
        sizes = self.sizes(size)
        for multiple, map_size in zip(self.levels, sizes, strict=True):
            middle = self.middle_attention and map_size == sizes[-1]
            if map_size in self.attention or middle:
                self._check_heads(self.width * multiple, map_size)

    def _check_numbers(self) -> None:
        """Refuse values that are outside their range."""
        if min(self.width, self.blocks, self.heads, *self.levels, len(self.levels)) < 1:
            raise ConfigError(
                f"network.width = {self.width}, levels = {list(self.levels)}, blocks = "
                f"{self.blocks} and heads = {self.heads} must all be 1 or more."
            )
        check_even_width(self.width)
        if self.head_width < 0:
            raise ConfigError(
                f"network.head_width = {self.head_width}; expected 0, for heads as many as "
                f"network.heads says, or a number of channels such as 64."
            )
        check_groups(self.groups)
        check_dropout(self.dropout)
        if not 0 < self.norm_eps < 1:
            raise ConfigError(
                f"network.norm_eps = {self.norm_eps}; expected a small number above 0: 1e-5 or "
                f"1e-6 is customary."
            )
        if not 0 < self.label_scale < math.inf:
            raise ConfigError(
                f"network.label_scale = {self.label_scale}; expected a number above 0: 1 tells the "
                f"network the schedule's own labels."
            )
        if not 0 < self.skip_scale <= 1:
            raise ConfigError(
                f"network.skip_scale = {self.skip_scale}; expected a number above 0, up to 1: "
                f"{math.sqrt(0.5):.4f} keeps the variance."
            )

    def _check_dead_options(self) -> None:
        """Refuse an option that another one takes no notice of."""
        if self.head_width and self.heads != 1:
            raise ConfigError(
                f"network.heads = {self.heads} does nothing beside network.head_width = "
                f"{self.head_width}, by which heads are counted: set one of them, heads to 1 or "
                f"head_width to 0."
            )
        if self.resample_filter != "box" and self.resample not in ("residual", "projected"):
            raise ConfigError(
                f'network.resample_filter = "{self.resample_filter}" does nothing with '
                f'network.resample = "{self.resample}": set resample to "residual" or "projected", '
                f'or the filter to "box".'
            )
        if self.input_pyramid and len(self.levels) == 1:
            raise ConfigError(
                "network.input_pyramid = true does nothing with one level, since nothing is "
                "halved: set it to false, or give network.levels two or more."
            )

    def _check_heads(self, channels: int, map_size: int) -> None:
        """Refuse heads that do not divide the channels that they share."""
        if self.head_width and channels % self.head_width:
            raise ConfigError(
                f"network.head_width = {self.head_width} must divide the {channels} channels at "
                f"size {map_size}: change head_width or width."
            )
        if channels % self.heads:
            raise ConfigError(
                f"network.heads = {self.heads} must divide the {channels} channels at size "
                f"{map_size}: change heads or width."
            )
