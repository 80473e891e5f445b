"""The one place where pixels become numbers and numbers become pixels."""

import torch
from torch import Tensor


def to_uint8(x: Tensor) -> Tensor:
    """Bring floats in [-1, 1] to bytes, rounding to the nearest.

    Args:
        x: Any floating-point dtype and shape; values outside [-1, 1] are clamped, and what is
            not a number becomes black.

    Returns:
        uint8, 0..255, same shape and device.
    """
    # float32 first: bfloat16 has 8 bits of mantissa and would merge neighbouring grey levels.
    return x.float().nan_to_num(nan=-1.0).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Bring bytes to floats in [-1, 1]; `to_uint8` is its exact inverse.

    Args:
        images: uint8, 0..255, any shape.

    Returns:
        float32 in [-1, 1], same shape and device.
    """
    return images.float() / 127.5 - 1
