"""Batches, a function of (seed, images seen).

Nothing is remembered between batches: which pictures are in a batch follows from the number of
images seen before it, so that a run can be started at any point at once, and a resumed run
sees what the uninterrupted one would have seen.  Nor does a batch depend on how many processes
share it: each takes its rows of it.
"""

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kao.data.augment import AugmentConfig, augment
from kao.data.keeping import Pictures
from kao.data.prefetch import ahead
from kao.errors import ConfigError
from kao.seeds import mixed_seed

_ORDER, _AUGMENT = 0, 1


@dataclass(frozen=True)
class Batch:
    """What one training step takes, or this process's share of it.

    Attributes:
        images: uint8, (B, 3, S, S), on the CPU or on the device that is trained on.
        indices: int64, (B,): which pictures of the set these are.
        labels: int64, (B,), or None where the set has no classes.
        augmentation: float32, (B, A), on the CPU: what was done to each picture, for the network
            to be told; or None where there is nothing to tell.
        count: Pictures in the whole batch, over all processes.
    """

    images: Tensor
    indices: Tensor
    labels: Tensor | None
    augmentation: Tensor | None
    count: int


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
    pictures: Pictures,
    *,
    batch: int,
    seed: int,
    images: int = 0,
    augmentation: AugmentConfig | None = None,
    rows: slice | None = None,
    indices: Tensor | None = None,
    device: torch.device | None = None,
) -> Generator[Batch, None, None]:
    """Batches without end, from the one that follows after `images` images.

    Args:
        pictures: A prepared set, or where it is kept (see `keeping`).
        batch: Pictures in a batch, over all processes; may exceed the number of pictures.
        seed: Of the run; decides the order and the augmentation.
        images: Images seen before.
        augmentation: What is done to each picture; None leaves them as they are.
        rows: Which part of each batch to read; None: all of it.
        indices: int64, (N,): the pictures to take, as `split` gives them; None: all.
        device: Where it is trained on.  If that is CUDA, the pictures are put there; those
            that are not kept there are read by a thread, two batches ahead.

    Yields:
        Batches of exactly `batch` pictures, or those of their rows.

    Raises:
        ConfigError: batch is below 1.
    """
    if batch < 1:
        raise ConfigError(f"training.batch = {batch}; expected 1 or more.")
    taken = torch.arange(len(pictures)) if indices is None else indices
    rows = slice(None) if rows is None else rows
    read = _read(pictures, taken, batch=batch, rows=rows, seed=seed, images=images)
    if device is not None and device.type == "cuda" and pictures.device.type == "cpu":
        read = _copied(ahead(_pinned(read)), device)
    with closing(read):
        for images, met, shown in read:
            told = None
            if augmentation is not None:
                generator = torch.Generator().manual_seed(mixed_seed(_AUGMENT, seed, images))
                draws = augmentation.draw(batch, generator).rows(rows)
                shown, told = augment(shown, draws), draws.labels
            labels = None if pictures.labels is None else torch.from_numpy(pictures.labels)[met]
            yield Batch(shown, met, labels, told, batch)


_Read = tuple[int, Tensor, Tensor]
"""Images seen before, indices and pictures of a batch."""


def _read(
    pictures: Pictures, taken: Tensor, *, batch: int, rows: slice, seed: int, images: int
) -> Generator[_Read, None, None]:
    for before in itertools.count(images, batch):
        order = indices_at(before, batch, count=len(taken), seed=seed)
        met = taken[order[rows]]
        yield before, met, pictures.take(met)


def _pinned(read: Iterator[_Read]) -> Generator[_Read, None, None]:
    """With pictures where a GPU can fetch them by itself."""
    for before, met, shown in read:
        yield before, met, shown.pin_memory()


def _copied(
    read: Generator[_Read, None, None], device: torch.device
) -> Generator[_Read, None, None]:
    """With pictures on the device; the copy runs while the host goes on."""
    with closing(read):
        for before, met, shown in read:
            yield before, met, shown.to(device, non_blocking=True)
