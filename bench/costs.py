"""What an image costs in training, of several configurations in turns."""

import time
from collections.abc import Sequence
from statistics import mean

import torch

from kao.config import RunConfig
from kao.data.prepared import PreparedSet

_MOMENTS = 10
_IMAGES_A_MOMENT = 128


def relative_costs(
    configs: Sequence[RunConfig], prepared: PreparedSet, *, images: int
) -> list[float]:
    """Processor seconds an image over a whole run, relative to those of the first configuration.

    All train in this process, in turns, at ten moments of the run, since curricula cost more
    towards its end; so a busy machine slows all alike.

    Args:
        configs: Resolved, and of a length in images.
        prepared: The pictures.
        images: Over which the moments are spread.
    """
    sides = [config.build(prepared, torch.device("cpu")) for config in configs]
    ratios: list[list[float]] = []
    for moment in range(-1, _MOMENTS):
        seconds = []
        for trainer in sides:
            trainer.progress.images = max(0, moment) * images // _MOMENTS
            stream, seen = trainer.batches(trainer.progress.images), 0
            started = time.process_time()
            while seen < _IMAGES_A_MOMENT:
                batch = next(stream)
                trainer.step(batch)
                seen += batch.count
            seconds.append((time.process_time() - started) / seen)
        if moment >= 0:  # the first round warms up
            ratios.append([each / seconds[0] for each in seconds])
    return [mean(side) for side in zip(*ratios, strict=True)]
