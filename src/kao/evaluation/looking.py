"""Looking at a set of pictures through a feature space: once, by all processes together."""

import math
from collections.abc import Callable

import torch

from kao.evaluation import cache
from kao.evaluation.pictures import PictureSet
from kao.machine import device as best_device
from kao.metrics import Features, Inception
from kao.metrics.sight import Sight
from kao.processes import ALONE, Processes

BATCH = 64
"""Pictures that go through a feature network at a time."""


def look(
    pictures: PictureSet,
    space: Features,
    *,
    device: torch.device | None = None,
    batch: int = BATCH,
    kept: bool = True,
    processes: Processes = ALONE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sight:
    """A set of pictures as a feature space sees it, from the cache where it was seen before.

    Several processes, which must then call this together, each look at their share of the
    batches, and all of them get all features: on a CPU the same bits as of one process alone.

    Args:
        pictures: The set.
        space: The space; it is moved to `device`.
        device: Where to compute; None: the accelerator if there is one.
        batch: Pictures at a time.
        kept: Whether the features may be kept on the disk: not for pictures that will hardly come
            again.
        processes: Who shares the work.
        progress: Called with how many pictures of its share this process is done with, and how
            many they are.
    """
    mine = _share(len(pictures), batch, processes)
    features = cache.load(pictures, space)
    # Each may have a disk of its own: where one finds nothing, all of them look.
    missing = processes.any(features is None)
    if features is None or missing:
        on = device or best_device()
        space.to(on)
        chunks = []
        for start in range(mine.start, mine.stop, batch):
            images = pictures.images[start : min(start + batch, mine.stop)]
            chunks.append(space(images.to(on)).float().cpu())
            progress(start + len(images) - mine.start, len(mine))
        if not chunks:  # whose share is empty learns the width, which gathering asks for
            chunks.append(space(pictures.images[:1].to(on)).float().cpu()[:0])
        features = processes.gather(torch.cat(chunks))
        if kept and processes.main:
            cache.save(pictures, space, features)
    else:
        progress(len(mine), len(mine))
    classes = space.probabilities(features) if isinstance(space, Inception) else None
    return Sight(space.name, features, classes)


def _share(count: int, batch: int, processes: Processes) -> range:
    """The pictures of this process: whole batches, so that none is cut by another world."""
    chunks = processes.rows(math.ceil(count / batch))
    return range(min(batch * chunks.start, count), min(batch * chunks.stop, count))
