"""Noise that belongs to a picture, not to a batch."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kao.errors import ConfigError

Noise = Callable[[Tensor], Tensor]
"""Draws N(0, I) with the shape, dtype and device of its argument."""


class SeededNoise:
    """One generator per image: a picture depends on its seed, not on its batch or device.

    The generators are NumPy's, on the CPU: PyTorch's CPU generator keeps 32 bits of its seed,
    so that among 50,000 pictures two would be the same more likely than one in four.

    Args:
        seeds: One per image in batch order, integers >= 0 of any size.

    Raises:
        ConfigError: A seed is negative.
    """

    def __init__(self, seeds: Sequence[int]):
        for seed in seeds:
            _check_seed(seed)
        self.generators = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Draw each image's next noise.

        Args:
            x: (B, ...), B the number of seeds.  Only its shape, dtype and device are used.

        Returns:
            Standard normal, like `x`.

        Raises:
            ValueError: `x` has another number of images than there are seeds.
        """
        if len(x) != len(self.generators):
            raise ValueError(f"{len(self.generators)} seeds cannot serve {len(x)} images")
        draws = [g.standard_normal(x.shape[1:], dtype=np.float32) for g in self.generators]
        return torch.from_numpy(np.stack(draws)).to(x)


def seeds_of(seed: int, indices: Sequence[int]) -> list[int]:
    """The seeds of pictures `indices` of a set, each a function of (seed, index) alone.

    So picture i is the same whichever batch it is drawn in and however many there are.

    Args:
        seed: The set's seed, >= 0.
        indices: Positions in the set, >= 0.

    Returns:
        One integer in [0, 2^64) per index, for `SeededNoise`.

    Raises:
        ConfigError: seed is negative.
    """
    _check_seed(seed)
    return [
        int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1, np.uint64)[0])
        for index in indices
    ]


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"seed = {seed}, but a seed is a whole number from 0 up.")
