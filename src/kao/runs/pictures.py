"""Real pictures of a run, for figures."""

import torch
from torch import Tensor

from kao.config import RunConfig
from kao.data.prepare import prepare
from kao.data.sources import open_source


def some_real(config: RunConfig, *, n: int, seed: int) -> Tensor:
    """A few of the pictures that a run learned from, chosen at random.

    Args:
        config: Of the run.
        n: How many; fewer if there are fewer.
        seed: Of the choice.

    Returns:
        uint8, (n, 3, S, S).

    Raises:
        DataError: The pictures are not where they were.
    """
    data = config.data
    source = open_source(data.source, size=data.size, classes=data.classes)
    prepared = prepare(source, size=data.size, crop=data.crop)
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(prepared), generator=generator)[:n].sort().values
    return torch.from_numpy(prepared.images[indices.numpy()].copy())
