"""Which pictures are trained on, and which are held out to measure what was learned.

Near duplicates, mirror images too, go to one side together: a held-out picture with a twin among
the training pictures would measure memory, not learning.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kao.errors import ConfigError
from kao.seeds import mixed_seed

_SPLIT = 0x5EED5
"""No run's seed: runs that differ in theirs hold the same pictures out, and so compare."""

SHARE, MOST, FEWEST = 50, 256, 500
"""Of "auto": one picture in `SHARE`, at most `MOST`, and none of a set below `FEWEST`."""


def held_out_count(count: int, asked: int | Literal["auto"]) -> int:
    """How many pictures to hold out.

    Args:
        count: Pictures in the set.
        asked: A number, or "auto": 2 %, at most 256, none below 500 pictures, where two in a
            hundred would be too few to measure with and too many to do without.

    Raises:
        ConfigError: asked is negative, or leaves nothing to train on.
    """
    if asked == "auto":
        return 0 if count < FEWEST else min(count // SHARE, MOST)
    if asked < 0:
        raise ConfigError(f'data.held_out = {asked}; expected a number from 0 up, or "auto".')
    if asked >= count:
        raise ConfigError(
            f"data.held_out = {asked:,} of {count:,} pictures leaves none to train on: hold fewer "
            f'out, or set "auto".'
        )
    return asked


def split(groups: NDArray[np.int64], held_out: int) -> tuple[Tensor, Tensor]:
    """Divide a set by whole groups: a function of the two arguments alone.

    Groups are drawn at random, and held out while they fit into the number.

    Args:
        groups: int64, (N,): of each picture the first of its near duplicates, as
            `PreparedSet.groups` has them.
        held_out: How many to hold out at most, 0 .. N - 1; a few less where the last groups are
            too large, and none where all are.

    Returns:
        Indices to train on and indices held out: int64, each ascending, together 0 .. N - 1.
    """
    count = len(groups)
    generator = torch.Generator().manual_seed(mixed_seed(_SPLIT, count))
    order = torch.randperm(count, generator=generator).numpy()
    sizes = np.bincount(groups, minlength=count)
    left, taken = held_out, list[int]()
    for first in order[sizes[order] > 0].tolist():
        if left == 0:
            break
        if sizes[first] <= left:
            taken.append(first)
            left -= int(sizes[first])
    held = np.isin(groups, taken)
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


def check_split(groups: NDArray[np.int64], asked: int | Literal["auto"]) -> int:
    """How many pictures to hold out of a set whose near duplicates are known.

    Args:
        groups: As of `split`.
        asked: As of `held_out_count`; "auto" counts each group once.

    Raises:
        ConfigError: As `held_out_count`, or whole groups give less than half of the number.
    """
    if asked == "auto":
        return held_out_count(len(np.unique(groups)), asked)
    wanted = held_out_count(len(groups), asked)
    held = len(split(groups, wanted)[1])
    if 2 * held < wanted:
        raise ConfigError(
            f"data.held_out = {asked} of {len(groups):,} pictures, but near duplicates are held "
            f"out together, and only {held} lie in groups small enough for that: remove "
            f'duplicates, set another number, or "auto".'
        )
    return wanted
