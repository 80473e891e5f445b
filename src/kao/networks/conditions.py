"""What a network may be told beside the noise level: where a picture lies, what was done to it."""

from typing import NamedTuple

import torch
from torch import Tensor


class Conditions(NamedTuple):
    """What a network is told of each picture; None: nothing in particular.

    Attributes:
        where: Coordinates of what is shown, (B, 2, H, W), x to the right and then y downwards, of
            the centres of the pixels; a whole picture reaches from -1 to 1, so a part of one has
            a part of that (Wang et al. 2023, "Patch Diffusion").
        augmentation: What was done to each picture, (B, A), float32, zeros where nothing was
            (Karras et al. 2022, appendix F.2).
    """

    where: Tensor | None = None
    augmentation: Tensor | None = None


NOTHING = Conditions()
"""Of whole pictures to which nothing was done."""


def whole(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Coordinates of a whole picture.

    Args:
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        device: Where to make them; None: the default device.

    Returns:
        (2, H, W), float32, above -1 and below 1, x and then y.
    """
    x = (2 * torch.arange(width, device=device) + 1) / width - 1
    y = (2 * torch.arange(height, device=device) + 1) / height - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
