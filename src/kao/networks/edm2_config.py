"""The options of the magnitude-preserving U-Net, and what of them fits together."""

from dataclasses import dataclass
from typing import Literal

from kao.errors import ConfigError
from kao.networks.checks import check_dropout
from kao.networks.conditions import Takes
from kao.networks.edm2 import EDM2
from kao.networks.sides import check_sizes, level_sizes


@dataclass(frozen=True)
class EDM2Config:
    """The shape of a magnitude-preserving U-Net.  The defaults are those of EDM2-XS: 125 M.

    EDM2-S, M, L, XL and XXL have widths of 192, 256, 320, 384 and 448 (Karras et al. 2024a).

    Attributes:
        width: Channels at the first level.
        levels: Multiples of `width`, one a level; each level has half the size of the one before.
        blocks: Residual blocks a level on the way down (one more on the way up).
        attention: Feature-map sizes, in pixels after the stem, at which attention is used; in the
            middle it always is.
        head_width: Channels of an attention head.
        dropout: Share of activations dropped in each residual block, 0..1.
        stem: 1, 2 or 4: pixels along a side that are folded into channels.
    """

    width: int = 128
    levels: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (16, 8)
    head_width: int = 64
    dropout: float = 0.0
    stem: Literal[1, 2, 4] = 1

    def build(
        self,
        *,
        channels: int,
        size: int,
        outputs: int | None = None,
        takes: Takes = Takes(),
    ) -> EDM2:
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
        takes.refuse_tokens("edm2")
        return EDM2(self, channels=channels, size=size, outputs=outputs or channels, takes=takes)

    @property
    def multiple(self) -> int:
        """What the side of every picture it is shown must be a multiple of, pixels."""
        return self.stem * 2 ** (len(self.levels) - 1)

    def sizes(self, size: int) -> list[int]:
        """Feature-map sizes from the first level to the last, for pictures of `size` pixels."""
        return level_sizes(size, stem=self.stem, levels=len(self.levels))

    def check(self, size: int) -> None:
        """Raise a ConfigError that says what does not fit, and what would."""
        if min(self.width, self.blocks, self.head_width, *self.levels, len(self.levels)) < 1:
            raise ConfigError(
                f"network.width = {self.width}, levels = {list(self.levels)}, blocks = "
                f"{self.blocks} and head_width = {self.head_width} must all be 1 or more."
            )
        check_dropout(self.dropout)
        check_sizes(size, stem=self.stem, levels=self.levels, attention=self.attention)
        sizes = self.sizes(size)
        for multiple, map_size in zip(self.levels, sizes, strict=True):
            attends = map_size in self.attention or map_size == sizes[-1]
            if attends and self.width * multiple % self.head_width:
                raise ConfigError(
                    f"network.head_width = {self.head_width} must divide the "
                    f"{self.width * multiple} channels at size {map_size}: change head_width or "
                    f"width."
                )
