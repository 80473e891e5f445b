"""Which pictures are trained on, and which are held out to measure what was learned."""

from typing import Literal

import torch
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


def split(count: int, held_out: int) -> tuple[Tensor, Tensor]:
    """Part a set: a function of the two numbers alone.

    Args:
        count: Pictures in the set.
        held_out: How many to hold out, 0 .. count - 1.  Those of a smaller number are among
            those of a larger one.

    Returns:
        Indices to train on and indices held out: int64, each ascending, together 0 .. count - 1.
    """
    generator = torch.Generator().manual_seed(mixed_seed(_SPLIT, count))
    order = torch.randperm(count, generator=generator)
    return order[held_out:].sort().values, order[:held_out].sort().values
