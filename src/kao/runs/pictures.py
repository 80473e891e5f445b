"""Real pictures of a run, for figures."""

import shlex

import torch
from torch import Tensor

from kao.config import RunConfig
from kao.config.sections import DataConfig
from kao.data.prepare import Preparation
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source
from kao.errors import DataError


def some_real(config: RunConfig, *, n: int, seed: int) -> Tensor:
    """A few of the pictures that a run learned from, chosen at random; prepares nothing.

    Args:
        config: Of the run.
        n: How many; fewer if there are fewer.
        seed: Of the choice.

    Returns:
        uint8, (n, 3, S, S).

    Raises:
        DataError: The pictures are not where they were, are others now, or do not stand
            prepared in the cache.
    """
    prepared = learned_from(config.data)
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(prepared), generator=generator)[:n].sort().values
    return torch.from_numpy(prepared.images[indices.numpy()].copy())


def learned_from(data: DataConfig) -> PreparedSet:
    """The standing set with the very pixels of the run: a figure is not worth preparing anew.

    Those held out are in it too; `kao.data.split` says which they are.

    Args:
        data: Of the run.

    Raises:
        DataError: As `some_real`.
    """
    if not data.source:
        raise DataError(
            "The run was imported, and which pictures it learned from is not known here: name "
            "pictures of your own instead."
        )
    source = open_source(data.source, size=data.size, classes=data.classes)
    prepared = Preparation(source, size=data.size, crop=data.crop).standing()
    if prepared is None:
        words = ["kao", "prepare", data.source, "--size", str(data.size), "--crop", data.crop]
        words += [word for name in data.classes for word in ("--class", name)]
        raise DataError(
            f"The pictures that the run learned from are not here any more: {data.source} has "
            f"changed, or was not prepared here. Bring them back and run `{shlex.join(words)}`."
        )
    if prepared.fingerprint != data.fingerprint:
        raise DataError(
            f"The pictures that the run learned from are not here any more: {data.source} holds "
            f"others now. Bring them back and run `kao prepare` on them."
        )
    return prepared
