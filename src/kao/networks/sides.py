"""Which sizes of pictures a network can be built for, and be shown."""

from collections.abc import Sequence

from torch import Tensor

from kao.errors import ConfigError


def refuse_unfit(x: Tensor, multiple: int) -> None:
    """Refuse pictures whose sides a network cannot fold, halve or cut into patches.

    Args:
        x: Pictures, (B, C, H, W).
        multiple: What H and W must be multiples of, pixels.

    Raises:
        ConfigError: They are not.
    """
    height, width = x.shape[2:]
    if height % multiple or width % multiple:
        near = [max(1, round(side / multiple)) * multiple for side in (width, height)]
        raise ConfigError(
            f"This network was shown pictures of {width} x {height} pixels, and both sides must be "
            f"multiples of {multiple}: show it {near[0]} x {near[1]}."
        )


def level_sizes(size: int, *, stem: int, levels: int) -> list[int]:
    """Sides of the feature maps of a U-Net that halves them from level to level, in pixels.

    Args:
        size: Of the pictures, pixels.
        stem: Pixels along a side that are folded into channels.
        levels: How many.
    """
    return [size // stem // 2**i for i in range(levels)]


def check_sizes(size: int, *, stem: int, levels: Sequence[int], attention: Sequence[int]) -> None:
    """Refuse a size that such a U-Net cannot halve, or attention at a size that no level has.

    Args:
        size: Of the pictures, pixels.
        stem: As network.stem.
        levels: As network.levels.
        attention: As network.attention.

    Raises:
        ConfigError: It says what would fit.
    """
    if len(levels) > size.bit_length():
        raise ConfigError(
            f"network.levels has {len(levels):,} levels, each of half the size of the one before, "
            f"and data.size = {size} can be halved {size.bit_length() - 1} times at most: give "
            f"fewer levels."
        )
    factor = stem * 2 ** (len(levels) - 1)
    if size % factor:
        raise ConfigError(
            f"network.levels = {list(levels)} with stem = {stem} needs a size that is a multiple "
            f"of {factor}, and data.size = {size}: try {max(1, round(size / factor)) * factor}, or "
            f"fewer levels."
        )
    sizes = level_sizes(size, stem=stem, levels=len(levels))
    if unused := [side for side in attention if side not in sizes]:
        raise ConfigError(
            f"network.attention names the size {unused[0]}, which no level has at data.size = "
            f"{size}: choose of the feature maps, which are {sizes} pixels wide."
        )
