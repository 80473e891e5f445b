"""Memorisation: which samples are copies of training pictures.

How near is too near depends on the set and, within it, on the picture: plain pictures lie close
together.  So the distance to the nearest training picture is divided by that to the fifth, as
Carlini et al. (2023, sec. 5) divide by the mean distance of many.  What is unusual is learned
from real pictures that were not trained on, as in the tests of Meehan et al. (2020; for densities:
van den Burg & Williams 2021).  A sample counts as a copy where its ratio is lower than that of all
but one in a hundred real pictures; so one new picture in a hundred is flagged by chance, and a
share of 1 % says nothing.

Several ways to compare look for several kinds of copies: by pixels with small shifts finds moved
ones, by means finds blurred and noisy ones, and a feature space finds those with parts exchanged.
The ratios' logarithms are standardised by those of real pictures, and the lowest one counts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.copy_line import (
    CHANCE,
    Line,
    flagged_by_others,
    possible_quantiles,
    sampled_share,
    share_below,
)
from kao.metrics.neighbours import (
    MEANS,
    PIXELS,
    TWIN,
    Neighbours,
    coarse,
    nearest,
    nearest_shifted,
    without_twins,
)
from kao.metrics.scores import Score
from kao.metrics.spaces.features import Features
from kao.seeds import mixed_seed

LEAST = 20
"""Training pictures below which nothing can be said."""

_FIFTH = 5  # the neighbour whose distance is the yardstick
_SEARCHED = 15  # so many that five are left where each occurs three times
_ENOUGH = 100  # held-out pictures below which training pictures take their place
_MOST = 1000  # real pictures that are asked
_HALF = 0.5  # a ratio below it, if no other real picture is near it, is that of a twin
_FAR = 3.0  # quartile distances below the lower quartile: "far out" (Tukey 1977, ch. 2)
_SMALLEST = 1e-3  # ratio: the logarithm of 0 is none
_BATCH = 64
_CPU = torch.device("cpu")
_ASKED, _FOLDS, _LINES = 1, 2, 3  # purposes of seeds

_Search = Callable[[Tensor, Tensor | None], Neighbours]
"""The neighbours of pictures, whose own numbers in the training set are passed over."""


@dataclass(frozen=True, eq=False)
class Copies:
    """Samples held against training pictures.

    Attributes:
        rate: Share of the samples that are flagged, 0..1; its interval holds what is not known of
            the line, too, and `own_error` is that of the samples alone.
        real: The same of real pictures, each flagged by a line that others drew, with Wilson's
            interval.
        flagged: Which samples, int64, the most certain first.
        index: The training picture that each sample is nearest to, int64, (Q,), in the way of
            comparing that tells most.
        mirrored: Whether its mirror image is what is near, bool, (Q,).
        view: That way of comparing, of each sample.
        distance: By it, float32, (Q,): root mean square difference, in grey levels or, in a
            feature space, in standard deviations.
        ratio: Of that distance to the one to the fifth neighbour, float32, (Q,).
        surprise: How unusual it is, float64, (Q,): standard deviations from the mean of real
            pictures; the lower, the nearer to a copy.
        line: Below it a sample is flagged.
        calibration: Which pictures drew the line, in words.
    """

    rate: Score
    real: Score
    flagged: Tensor
    index: Tensor
    mirrored: Tensor
    view: tuple[str, ...]
    distance: Tensor
    ratio: Tensor
    surprise: Tensor
    line: float
    calibration: str

    def sentence(self) -> str:
        """The result in words."""
        rate, real = self.rate, self.real
        return (
            f"{len(self.flagged):,} of {rate.samples:,} samples ({rate.value:.1%}, 95 % interval "
            f"{rate.low:.1%} to {rate.high:.1%}) are taken for copies, where about "
            f"{CHANCE:.0%} of new pictures would be: they are nearer to a training picture, as its "
            f"surroundings go, than 99 of 100 of those. Of real pictures "
            f"{real.value:.1%} are. {self.calibration}"
        )


class CopyFinder:
    """Finds copies of one training set; it is calibrated once.

    Args:
        train: The training pictures, uint8, (N, 3, S, S).
        held: Real pictures that were not trained on, uint8, (M, 3, S, S); fewer than 100 are too
            few to learn from, and then training pictures are used, each held against the others.
        space: A feature space to compare in, too.
        seen: Features of the training pictures in it, (N, D), where they are known already.
        device: Where that space is.
        seed: Of the choice of real pictures, 1,000 at most.

    Raises:
        DataError: There are fewer than 20 training pictures, or of the real pictures fewer than
            20 are no twins; or pictures are of different sizes.
    """

    def __init__(
        self,
        train: Tensor,
        *,
        held: Tensor | None = None,
        space: Features | None = None,
        seen: Tensor | None = None,
        device: torch.device = _CPU,
        seed: int = 0,
    ):
        if len(train) < LEAST:
            raise DataError(
                f"{len(train)} training pictures are too few to tell copies from new pictures, "
                f"and a model of so few memorises them; expected {LEAST} or more: compare "
                f"drawn pictures with them by eye, or leave the search for copies out."
            )
        self.train = train
        self._searches = _searches(train, space, seen, device)
        from_held = held is not None and len(held) >= _ENOUGH
        pool = held if held is not None and from_held else train
        self._check(pool)
        asked = _shuffled(len(pool), mixed_seed(seed, _ASKED))[:_MOST]
        nearness = self._nearness(pool[asked], None if from_held else asked)
        logs = nearness.logs[~_twins(nearness)]
        if len(logs) < LEAST:
            raise DataError(
                f"Of {len(asked)} real pictures all but {len(logs)} occur in the training set as "
                f"well, so copies cannot be told from new pictures: remove duplicates."
            )
        self._line = Line.through(logs)
        lowest = self._line.standardised(logs).amin(1)
        self._heights = possible_quantiles(lowest, CHANCE, seed=mixed_seed(seed, _LINES))
        flagged = flagged_by_others(logs, seed=mixed_seed(seed, _FOLDS))
        self.real = sampled_share("copies, real pictures", flagged, len(logs))
        self.calibration = _in_words(
            len(logs), len(asked) - len(logs), None if held is None else len(held), from_held
        )

    def __call__(self, drawn: Tensor) -> Copies:
        """Hold samples against the training pictures.

        Args:
            drawn: uint8, (Q, 3, S, S), at least one.

        Raises:
            DataError: There is none, or their size is not that of the training pictures.
        """
        self._check(drawn)
        nearness = self._nearness(drawn, None)
        lowest = self._line.standardised(nearness.logs).min(1)
        flags = lowest.values < self._line.height
        names = list(self._searches)
        column = lowest.indices[:, None]

        def told(values: Tensor) -> Tensor:
            return values.gather(1, column)[:, 0]

        order = lowest.values.argsort(stable=True)
        return Copies(
            rate=share_below(lowest.values, self._line.height, self._heights),
            real=self.real,
            flagged=order[flags[order]],
            index=told(nearness.index),
            mirrored=told(nearness.mirrored),
            view=tuple(names[i] for i in lowest.indices.tolist()),
            distance=told(nearness.distance),
            ratio=told(nearness.ratio),
            surprise=lowest.values,
            line=self._line.height,
            calibration=self.calibration,
        )

    def _check(self, images: Tensor) -> None:
        if not len(images):
            raise DataError(
                "There is no picture to hold against the training pictures; expected one or more: "
                "draw some first."
            )
        if images.shape[1:] != self.train.shape[1:]:
            raise DataError(
                f"Pictures of shape {tuple(images.shape)} cannot be held against training pictures "
                f"of shape {tuple(self.train.shape)}: bring both to the same size."
            )

    def _nearness(self, pictures: Tensor, own: Tensor | None) -> "_Nearness":
        parts = []
        for search in self._searches.values():
            found = without_twins(search(pictures, own), self.train, k=_FIFTH)
            first, last = found.distance[:, 0], found.distance[:, -1]
            # Where all five are at no distance there is nothing to tell by.
            ratio = torch.where(last > 0, first / last, 1.0)
            parts.append((first, ratio, found.index[:, 0], found.mirrored[:, 0]))
        return _Nearness(*(torch.stack(column, dim=1) for column in zip(*parts, strict=True)))


def _searches(
    train: Tensor, space: Features | None, seen: Tensor | None, device: torch.device
) -> dict[str, _Search]:
    """The ways to compare, by name; the first is by pixels."""
    searches: dict[str, _Search] = {
        PIXELS: lambda images, own: nearest_shifted(images, train, k=_SEARCHED, own=own),
        MEANS: lambda images, own: nearest(images, train, coarse, k=_SEARCHED, own=own),
    }
    if space is not None:

        def features(images: Tensor) -> Tensor:
            return torch.cat(
                [space(batch.to(device)).cpu() for batch in torch.split(images, _BATCH)]
            )

        known = (features(train) if seen is None else seen).float()
        # Units differ from one feature to the next; one that never changes says nothing.
        std = known.std(0)
        std = torch.where(std > 1e-6, std, torch.inf)
        known = known / std
        searches[f"by {space.name}"] = lambda images, own: nearest(
            images, train, lambda batch: features(batch) / std, k=_SEARCHED, own=own, seen=known
        )
    return searches


@dataclass(frozen=True, eq=False)
class _Nearness:
    """What was found of Q pictures in V ways: each (Q, V)."""

    distance: Tensor
    ratio: Tensor
    index: Tensor
    mirrored: Tensor

    @property
    def logs(self) -> Tensor:
        """Of the ratios, float64."""
        return self.ratio.double().clamp(min=_SMALLEST).log()


def _twins(nearness: _Nearness) -> Tensor:
    """Which real pictures occur again in the set, (Q,), bool: those say nothing of new ones.

    Either they are the same by pixels; or, retouched or cropped anew, nearer than half the
    yardstick, with a gap between them and all others.
    """
    same = nearness.distance[:, 0] < TWIN
    logs = nearness.logs
    if same.all():
        return same
    lower, upper = logs[~same].quantile(torch.tensor([0.25, 0.75]).double(), dim=0)
    bound = (lower - _FAR * (upper - lower)).clamp(max=math.log(_HALF))
    return same | (logs < bound).any(1)


def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _in_words(count: int, twins: int, held: int | None, from_held: bool) -> str:
    again = f"; {twins} more occur again in the training set and were left out" if twins else ""
    if from_held:
        return f"The line was drawn by {count:,} held-out pictures{again}."
    why = "there are no held-out ones" if not held else f"{held} held-out ones are too few"
    return (
        f"The line was drawn by {count:,} training pictures, each held against the others, since "
        f"{why}{again}."
    )
