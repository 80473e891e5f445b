"""Where a prepared set lies while it is trained on: on disk, in memory, on the GPU.

A prepared set is a memory map, which the system keeps in memory as long as nothing else wants the
room; on a machine that trains only, that is nearly as good as holding it.  Held in memory no page
of it is ever dropped, and on the GPU nothing is copied while training.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kao.data.prepared import PreparedSet
from kao.errors import ConfigError
from kao.machine import free_memory

Kept = Literal["disk", "memory", "device"]
Place = Literal["auto", "disk", "memory", "device"]

_SHARE = 4
"""A set may take one part in so many of what is free before "auto" leaves it where it is."""


class Pictures(Protocol):
    """Pictures to take batches of; a `PreparedSet` is one, on disk."""

    @property
    def groups(self) -> NDArray[np.int64]:
        """int64, (N,): of each picture the first of its near duplicates."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """int64, (N,), class indices, -1 for none; or None if there are no classes."""

    @property
    def device(self) -> torch.device:
        """Where `take` puts what it takes."""

    def __len__(self) -> int:
        """How many there are."""

    def take(self, indices: Tensor) -> Tensor:
        """Some of them, copied.

        Args:
            indices: int64, (B,), on the CPU.

        Returns:
            uint8, (B, 3, S, S), on `device`.
        """


@dataclass(frozen=True, eq=False)
class Held:
    """A whole set in one tensor.

    Attributes:
        images: uint8, (N, 3, S, S), in memory or on a device.
        groups: int64, (N,): of each picture the first of its near duplicates.
        labels: int64, (N,), or None if there are no classes.
    """

    images: Tensor
    groups: NDArray[np.int64]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """Where the pictures are."""
        return self.images.device

    def take(self, indices: Tensor) -> Tensor:
        """Some of the pictures, copied; see `Pictures.take`."""
        return self.images.index_select(0, indices.to(self.device))


def place(prepared: PreparedSet, asked: Place, device: torch.device, *, processes: int = 1) -> Kept:
    """Where the set will lie: to be asked once, before it lies there and its room is gone.

    Args:
        prepared: The set.
        asked: One of three places, or "auto": on a CUDA device if it takes at most a quarter of
            what is free there, else in memory if it takes at most a quarter of what is free
            there, else on disk.
        device: Where it is trained on.
        processes: How many on this machine hold the set, each for itself.

    Returns:
        "disk", "memory" or "device".

    Raises:
        ConfigError: The place that is asked for has no room, or does not exist.
    """
    needed = prepared.images.nbytes
    if asked == "device" and device.type != "cuda":
        raise ConfigError(
            f'data.keep = "device" holds the pictures on a CUDA GPU, and this run trains on '
            f'{device.type}: set "auto", "memory" or "disk".'
        )
    if asked == "disk":
        return asked
    if asked != "memory" and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if asked == "device":
            _refuse_without_room(asked, needed, free)
            return asked
        if _SHARE * needed <= free:
            return "device"
    free = free_memory(torch.device("cpu")) // processes
    if asked == "memory":
        _refuse_without_room(asked, needed, free)
        return asked
    return "memory" if _SHARE * needed <= free else "disk"


def keep(prepared: PreparedSet, where: Kept, device: torch.device) -> Pictures:
    """The pictures of a set, where they will lie while it is trained on.

    Args:
        prepared: The set; itself returned where it stays on disk.
        where: From `place`.
        device: Where it is trained on.
    """
    if where == "disk":
        return prepared
    images = torch.empty(
        prepared.images.shape,
        dtype=torch.uint8,
        device=device if where == "device" else torch.device("cpu"),
    )
    # In parts, since the GPU's copy must not need the set in memory a second time.
    for start in range(0, len(prepared), _PART):
        images[start : start + _PART] = torch.tensor(prepared.images[start : start + _PART])
    return Held(images, prepared.groups, prepared.labels)


_PART = 4096
"""Pictures that are copied at a time."""


def _refuse_without_room(asked: Place, needed: int, free: int) -> None:
    if needed > free:
        raise ConfigError(
            f'data.keep = "{asked}", but the pictures take {needed / 2**30:.1f} GiB and '
            f'{free / 2**30:.1f} GiB are free there: set "auto", or take fewer or smaller pictures.'
        )
