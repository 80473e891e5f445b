"""How pictures are brought to the size that a published feature network was trained on.

Scores of two resizes differ by more than those of two models (Parmar et al. 2022), so each network
has the very one of the code that its published numbers come from.  The oldest of them, bilinear
on TensorFlow 1's grid, is a part of the Inception file: see `kao.metrics.Inception`.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kao.machine import usable_cores


def clean(images: Tensor, side: int) -> Tensor:
    """Antialiased bicubic without rounding, the one of Parmar et al. (2022).

    Each channel is resized in floats by Pillow, whose bicubic (Keys 1981, a = -1/2) widens its
    kernel where it makes smaller; what overshoots is clipped.

    Args:
        images: uint8, (B, 3, H, W), on any device.
        side: Pixels.

    Returns:
        float32, (B, 3, side, side), in 0..255, on the device of `images`.
    """
    channels = images.cpu().flatten(0, 1).numpy().astype(np.float32)
    out = np.stack(_by_pillow(channels, side)).clip(0, 255)
    return torch.from_numpy(out).view(*images.shape[:2], side, side).to(images.device)


def rounded(images: Tensor, side: int) -> Tensor:
    """Antialiased bicubic to bytes, Pillow's own.

    Stein et al. (2023) and the code of Jayasumana et al. (2024) resize by it.

    Args:
        images: uint8, (B, 3, H, W), on any device.
        side: Pixels.

    Returns:
        uint8, (B, 3, side, side), on the device of `images`.
    """
    out = np.stack(_by_pillow(images.permute(0, 2, 3, 1).cpu().numpy(), side))
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous().to(images.device)


def _by_pillow(pictures: NDArray[Any], side: int) -> list[NDArray[Any]]:
    """Pictures of one channel in floats, or of three in bytes; one thread a core."""

    def resized(picture: NDArray[Any]) -> NDArray[Any]:
        image = Image.fromarray(np.ascontiguousarray(picture))
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(min(usable_cores(), 16)) as pool:
        return [*pool.map(resized, pictures)]
