"""Batches straight from the memory map, a function of (seed, images seen).

Nothing is remembered between batches: which pictures are in a batch follows from the number of
images seen before it, so that a run can be started at any point at once, and a resumed run
sees what the uninterrupted one would have seen.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kao.data.augment import AugmentConfig, augment
from kao.data.prepared import PreparedSet
from kao.errors import ConfigError
from kao.seeds import mixed_seed

_ORDER, _AUGMENT = 0, 1


@dataclass(frozen=True)
class Batch:
    """What one training step takes.

    Attributes:
        images: uint8, (B, 3, S, S).
        indices: int64, (B,): which pictures of the prepared set these are.
        labels: int64, (B,), or None where the set has no classes.
    """

    images: Tensor
    indices: Tensor
    labels: Tensor | None


@lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(mixed_seed(_ORDER, seed, epoch))
    return torch.randperm(count, generator=generator)


def indices_at(images: int, batch: int, *, count: int, seed: int) -> Tensor:
    """Which pictures follow after `images` images: each once an epoch, in a new order each time.

    Args:
        images: Images seen before.
        batch: How many to name.
        count: Pictures in the set.
        seed: Of the run.

    Returns:
        int64, (batch,), in 0 .. count - 1.
    """
    positions = torch.arange(images, images + batch)
    epochs = positions // count
    parts = [
        _epoch_order(count, seed, epoch)[positions[epochs == epoch] % count]
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
    ]
    return torch.cat(parts)


def batches(
    prepared: PreparedSet,
    *,
    batch: int,
    seed: int,
    images: int = 0,
    augmentation: AugmentConfig | None = None,
) -> Iterator[Batch]:
    """Batches without end, from the one that follows after `images` images.

    Args:
        prepared: The pictures.
        batch: Pictures in a batch; may exceed the number of pictures.
        seed: Of the run; decides the order and the augmentation.
        images: Images seen before.
        augmentation: What is done to each picture; None leaves them as they are.

    Yields:
        Batches of exactly `batch` pictures.

    Raises:
        ConfigError: batch is below 1.
    """
    if batch < 1:
        raise ConfigError(f"training.batch = {batch}; expected 1 or more.")
    while True:
        indices = indices_at(images, batch, count=len(prepared), seed=seed)
        pictures = torch.from_numpy(np.ascontiguousarray(prepared.images[indices.numpy()]))
        if augmentation is not None:
            generator = torch.Generator().manual_seed(mixed_seed(_AUGMENT, seed, images))
            pictures = augment(pictures, augmentation, generator)
        labels = None if prepared.labels is None else torch.from_numpy(prepared.labels)[indices]
        yield Batch(pictures, indices, labels)
        images += batch
