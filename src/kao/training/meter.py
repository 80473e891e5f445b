"""What happened since the last line of the log."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from kao.diffusion.schedules import Level
from kao.training.spikes import Spike, SpikeWatch

BAND_EDGES = (-4.0, -2.0, 0.0, 2.0, 4.0)
"""Edges of the noise bands, in log(alpha^2 / sigma^2): the left band is almost pure noise."""


def band_names() -> list[str]:
    """Names of the bands from the noisiest to the cleanest: "<-4", "-4..-2", ..., ">4"."""
    inner = [f"{a:g}..{b:g}" for a, b in pairwise(BAND_EDGES)]
    return [f"<{BAND_EDGES[0]:g}", *inner, f">{BAND_EDGES[-1]:g}"]


class Meter:
    """Sums over the steps since `take` was last called."""

    def __init__(self) -> None:
        self._watch = SpikeWatch()
        self._paused: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._bands: dict[int, list[float]] = defaultdict(list)
        self._norms: list[float] = []
        self._spikes: list[Spike] = []
        self._images = 0
        self._waited = 0.0
        self._started = self._now()

    def _now(self) -> float:
        """Seconds of a clock that stands still while paused."""
        return time.perf_counter() if self._paused is None else self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is not training: its seconds count nowhere.  `take` may be called in it."""
        self._paused = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - self._paused
            self._paused = None

    def add(
        self,
        losses: list[float],
        shown: list[float],
        level: Level,
        *,
        images: int,
        norm: float,
        waited: float,
    ) -> None:
        """Count one step.

        Args:
            losses: Loss of each image, as it is descended.
            shown: Loss of each image as it compares between noise levels and between runs:
                without what corrects for where the times were drawn.
            level: Noise level of each image, (B,).
            images: Images seen by the run, this step's included; says where a spike was.
            norm: Norm of all gradients together, before clipping.
            waited: Seconds this step waited for its batch.
        """
        self._losses += losses
        for loss, log_snr in zip(shown, level.snr.log().tolist(), strict=True):
            self._bands[sum(log_snr >= edge for edge in BAND_EDGES)].append(loss)
        if math.isfinite(norm):  # under fp16 the loss scaler skips steps whose gradient is not
            self._norms.append(norm)
        self._images += len(losses)
        self._waited += waited
        mean = math.fsum(shown) / len(shown)
        usual = self._watch(mean)
        if usual is not None:
            self._spikes.append(Spike(images, mean, usual))

    @property
    def empty(self) -> bool:
        """Whether nothing was counted since the last `take`."""
        return self._images == 0

    @property
    def spikes(self) -> list[Spike]:
        """The spikes since the last `take`."""
        return list(self._spikes)

    def take(self) -> dict[str, float | dict[str, float]]:
        """Means since the last call, and start again.

        Returns:
            loss, bands (loss by band of log snr; bands without an image are left out),
            gradient_norm, images_per_second, data_wait (share of the time, 0..1).
        """
        elapsed = self._now() - self._started
        names = band_names()
        report: dict[str, float | dict[str, float]] = {
            "loss": math.fsum(self._losses) / self._images,
            "bands": {
                names[i]: math.fsum(band) / len(band) for i, band in sorted(self._bands.items())
            },
            "gradient_norm": math.fsum(self._norms) / max(1, len(self._norms)),
            "images_per_second": self._images / elapsed,
            "data_wait": self._waited / elapsed,
        }
        self._clear()
        return report
