"""Sending pictures through a large network."""

from collections.abc import Callable

import torch
from torch import Tensor

from kao.errors import ConfigError
from kao.machine import exact_float32


def in_chunks(look: Callable[[Tensor], Tensor], images: Tensor, *, chunk: int) -> Tensor:
    """Features of pictures, a few at a time, in exact float32 and without gradients.

    Args:
        look: From uint8 (b, 3, H, W) to (b, D).
        images: uint8, (B, 3, H, W), on any device.
        chunk: Pictures at a time.

    Returns:
        float32, (B, D), on the device of `images`.

    Raises:
        ConfigError: The pictures are no bytes of RGB.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ConfigError(
            f"Feature networks take RGB pictures in bytes, (B, 3, H, W), and these are "
            f"{images.dtype} of shape {tuple(images.shape)}: bring them into that form."
        )
    with torch.no_grad(), exact_float32(images.device):
        starts = range(0, max(1, len(images)), chunk)
        return torch.cat([look(images[start : start + chunk]).float() for start in starts])
