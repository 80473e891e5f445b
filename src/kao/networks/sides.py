"""Which sizes of pictures a network can be shown."""

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
