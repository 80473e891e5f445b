"""Augmentation of uint8 batches: flip, shifted crop, Gaussian blur, colour jitter.

Each is drawn per picture from the generator that is passed in, in a fixed order, so a batch is
a function of its seed; what is off draws nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kao.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to each picture after loading.

    Attributes:
        flip: Mirror half of the pictures, left to right.
        crop: Random crop: shift by up to this many pixels in each direction, edges reflected.
        blur: Gaussian blur with a standard deviation drawn from 0 .. blur pixels.
        jitter: Brightness, contrast and saturation each scaled by 1 - jitter .. 1 + jitter.
    """

    flip: bool = True
    crop: int = 0
    blur: float = 0.0
    jitter: float = 0.0

    def check(self, size: int) -> None:
        """Raise a ConfigError if a value cannot work on pictures of `size` pixels."""
        if not 0 <= self.crop < size:
            raise ConfigError(
                f"data.augment.crop = {self.crop}; expected 0 to {size - 1} pixels for pictures of "
                f"{size} pixels."
            )
        if not 0 <= self.blur <= size / 4:
            raise ConfigError(
                f"data.augment.blur = {self.blur}; expected a standard deviation of 0 to "
                f"{size / 4:g} pixels."
            )
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"data.augment.jitter = {self.jitter}; expected 0 or more, below 1.")


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Augment a batch; the same generator state gives the same pictures.

    Args:
        images: uint8, (B, 3, S, S), on the CPU.
        config: What to do.
        generator: On the CPU.

    Returns:
        uint8, (B, 3, S, S), a new tensor where anything was done.
    """
    count = len(images)
    if config.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if config.crop:
        images = _shifted(images, config.crop, generator)
    if config.blur:
        std = config.blur * torch.rand(count, generator=generator)
        images = _to_bytes(_blurred(images.float(), std))
    if config.jitter:
        factors = 1 + config.jitter * (2 * torch.rand(3, count, generator=generator) - 1)
        images = _to_bytes(_jittered(images.float(), factors))
    return images


def _to_bytes(images: Tensor) -> Tensor:
    return images.round_().clamp_(0, 255).to(torch.uint8)


def _shifted(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Each picture moved by whole pixels, uniformly in -reach .. reach both ways."""
    size = images.shape[-1]
    offsets = torch.randint(-reach, reach + 1, (2, len(images), 1), generator=generator)
    # Reflection about the edge pixels: -1 -> 1, size -> size - 2.
    rows, columns = (size - 1 - (torch.arange(size) + offsets).abs().sub(size - 1).abs()).abs()
    batch = torch.arange(len(images))[:, None, None]
    moved = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def _blurred(images: Tensor, std: Tensor) -> Tensor:
    """Separable Gaussian blur, one standard deviation a picture, edges reflected."""
    reach = max(1, int(torch.ceil(3 * std.max())))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    # At std = 0 the kernel must be a spike: the floor keeps the division finite.
    kernel = torch.exp(-0.5 * (offsets / std.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    b, c, h, w = images.shape
    x = images.reshape(1, b * c, h, w)
    x = F.pad(x, (reach, reach, reach, reach), mode="reflect")
    x = F.conv2d(x, kernel[:, None, None, :], groups=b * c)
    x = F.conv2d(x, kernel[:, None, :, None], groups=b * c)
    return x.reshape(b, c, h, w)


def _jittered(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast about each picture's mean grey, then saturation about grey."""
    brightness, contrast, saturation = factors[:, :, None, None, None]
    luma = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)  # ITU-R BT.601
    images = images * brightness
    mean = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    grey = (images * luma).sum(1, keepdim=True)
    return grey + saturation * (images - grey)
