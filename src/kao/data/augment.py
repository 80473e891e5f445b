"""Augmentation of uint8 batches: flip, shifted crop, Gaussian blur, colour jitter, EDM's warps.

What is done to each picture is drawn on the CPU, in a fixed order, for the whole batch of a
step, and then done where the pictures are.  So a batch is a function of its seed, on every device
and for every process that takes some of its rows; what is off draws nothing.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kao.data import augment_edm
from kao.errors import ConfigError


@dataclass(frozen=True)
class Draws:
    """What is done to each picture of a batch; None where it is done to none.  On the CPU.

    Attributes:
        mirrored: bool, (B,).
        offsets: int64, (2, B, 1): shift down and right, pixels.
        std: float32, (B,): of the blur, pixels.
        reach: Of the blur's kernel, pixels to each side: one for the batch, so that a picture's
            sums do not depend on the others that are blurred with it.
        factors: float32, (3, B): of brightness, contrast and saturation.
        labels: float32, (B, 9): EDM's, which see.
    """

    mirrored: Tensor | None = None
    offsets: Tensor | None = None
    std: Tensor | None = None
    reach: int = 0
    factors: Tensor | None = None
    labels: Tensor | None = None

    def rows(self, rows: slice) -> "Draws":
        """Those of some of the pictures."""
        return Draws(
            mirrored=None if self.mirrored is None else self.mirrored[rows],
            offsets=None if self.offsets is None else self.offsets[:, rows],
            std=None if self.std is None else self.std[rows],
            reach=self.reach,
            factors=None if self.factors is None else self.factors[:, rows],
            labels=None if self.labels is None else self.labels[rows],
        )


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to each picture after loading.

    Attributes:
        flip: Mirror half of the pictures, left to right.  Without edm the network is not told,
            and draws faces of both kinds; with edm it is told, and draws them as they were.
        crop: Random crop: shift by up to this many pixels in each direction, edges reflected.
        blur: Gaussian blur with a standard deviation drawn from 0 .. blur pixels.
        jitter: Brightness, contrast and saturation each scaled by 1 - jitter .. 1 + jitter.
        edm: Probability of each transform of EDM's augmentation, of which the network is told
            (see `augment_edm`); 0 turns it off, 0.12 is what Karras et al. (2022) give small sets.
    """

    flip: bool = True
    crop: int = 0
    blur: float = 0.0
    jitter: float = 0.0
    edm: float = 0.0

    @property
    def labels(self) -> int:
        """Numbers in the label that the network is given of each picture; 0: it is given none."""
        return augment_edm.AUGMENTATIONS if self.edm > 0 else 0

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
        if not 0 <= self.edm <= 1:
            raise ConfigError(
                f"data.augment.edm = {self.edm}; expected a probability from 0 to 1: 0 turns it "
                f"off, 0.12 is customary for a few thousand pictures."
            )

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Draw what is done to the pictures of a batch.

        Args:
            count: Pictures in the whole batch, over all processes.
            generator: On the CPU; the same state draws the same.
        """
        mirrored = offsets = std = factors = labels = None
        reach = 0
        if self.flip:
            mirrored = torch.rand(count, generator=generator) < 0.5
        if self.crop:
            offsets = torch.randint(-self.crop, self.crop + 1, (2, count, 1), generator=generator)
        if self.blur:
            std = self.blur * torch.rand(count, generator=generator)
            reach = max(1, math.ceil(3 * std.max()))
        if self.jitter:
            factors = 1 + self.jitter * (2 * torch.rand(3, count, generator=generator) - 1)
        if self.edm:
            labels = augment_edm.draw_labels(count, self.edm, generator, mirrored=mirrored)
            mirrored = None
        return Draws(mirrored, offsets, std, reach, factors, labels)


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Do to each picture what was drawn for it.

    Args:
        images: uint8, (B, 3, S, S), on any device.
        draws: For these pictures.

    Returns:
        uint8, (B, 3, S, S), on the same device; a new tensor where anything was done.
    """
    if not len(images):  # a process's share of a batch that is smaller than there are processes
        return images
    if draws.mirrored is not None:
        mirrored = draws.mirrored.to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if draws.offsets is not None:
        images = _shifted(images, draws.offsets.to(images.device))
    if draws.std is not None:
        images = _to_bytes(_blurred(images.float(), draws.std.to(images.device), draws.reach))
    if draws.factors is not None:
        images = _to_bytes(_jittered(images.float(), draws.factors.to(images.device)))
    if draws.labels is not None:
        images = augment_edm.warp(images, draws.labels)
    return images


def _to_bytes(images: Tensor) -> Tensor:
    return images.round_().clamp_(0, 255).to(torch.uint8)


def _shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Each picture moved by whole pixels, edges reflected."""
    size = images.shape[-1]
    # Reflection about the edge pixels: -1 -> 1, size -> size - 2.
    at = torch.arange(size, device=images.device) + offsets
    rows, columns = (size - 1 - (at.abs() - (size - 1)).abs()).abs()
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def _blurred(images: Tensor, std: Tensor, reach: int) -> Tensor:
    """Separable Gaussian blur, one standard deviation a picture, edges reflected."""
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images.device)
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
    luma = images.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)  # ITU-R BT.601
    images = images * brightness
    mean = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    grey = (images * luma).sum(1, keepdim=True)
    return grey + saturation * (images - grey)
