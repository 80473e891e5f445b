"""What a run's pictures are held against while it trains.

The real pictures are those held out, where there are enough of them: a model that copies what it
was trained on does not gain by it.  Else they are training pictures.  Copies are looked for among
the training pictures.
"""

import hashlib
import time
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from kao.data.keeping import Pictures
from kao.data.split import split
from kao.errors import DataError
from kao.metrics import Features, KernelDistance, Score
from kao.metrics.colours import channel_drift
from kao.metrics.copies import LEAST, CopyFinder
from kao.seeds import mixed_seed

_REALS = 30
"""What the seed of this file is mixed with; the run's own seed is not among it."""

ENOUGH = 200
"""Held-out pictures from which on they are the reference."""

FEWEST = LEAST
"""Training pictures below which nothing is scored."""

_MOST = 2_000
"""Real pictures in the reference, at most: ten times as many would halve no error."""

_BYTES = 2**27
"""Of pictures that are kept for each purpose, at most."""

_ENOUGH_SEARCHED = 0.5
"""Share of the training pictures that must be among those searched for a rate of copies: of those
that are copied only so many are found."""

_TIMED = 100
"""Pictures that are looked for to learn how long that takes."""

_CALIBRATED = 1_000
"""Real pictures that a search for copies is calibrated with, at most: see `CopyFinder`."""

_AT_ONCE = 64


class Measured(NamedTuple):
    """What drawn pictures are like.

    Attributes:
        score: Kernel distance to the real pictures.
        drift: Of their channels, in grey levels.
        copies: Share that are copies; None where the set does not allow to tell, or less than
            half of it is searched.
        influences: Of each drawn picture on the score, float64, (N,).
    """

    score: Score
    drift: tuple[Score, ...]
    copies: Score | None
    influences: Tensor


class Yardstick:
    """Real pictures, which drawn ones are held against.

    Args:
        pictures: The whole set of the run.
        space: The feature space, on the device to work on.
        held_out: How many pictures are held out.
        drawn: Pictures of a score.  As many real ones, of the training set, are scored alike:
            the floor, below which no score is better.
        device: Where the space is.

    Attributes:
        measure: What a score is, in words; those of two measures do not compare.
        fingerprint: Of the real pictures that a score is held against, and of the feature space.
        trained: How many training pictures there are.
        searched: How many of them copies are looked for among.
        floor: The score of real pictures; None where they are too few.
    """

    def __init__(
        self,
        pictures: Pictures,
        space: Features,
        *,
        held_out: int,
        drawn: int,
        device: torch.device,
    ):
        self._space, self._device = space, device
        train, held = split(pictures.groups, held_out)
        order = train[_order(len(train))]
        most = max(FEWEST, _BYTES // pictures.take(order[:1]).numel())
        self._train = pictures.take(order[:most].sort().values).cpu()
        self.trained, self.searched = len(train), len(self._train)
        self._held = pictures.take(held[_order(len(held))][:most]).cpu()
        others = order[: min(drawn, len(train) // 4)]
        if len(held) >= ENOUGH:
            whose, self._reals = "held-out", self._held[:_MOST]
        else:
            groups = torch.from_numpy(pictures.groups)
            rest = order[~torch.isin(groups[order], groups[others])]
            if len(rest) < FEWEST:  # nearly all are duplicates of each other
                rest = order[len(others) :]
            rest = rest[: min(_MOST, most)]
            whose, self._reals = "training", pictures.take(rest.sort().values).cpu()
        self._distance = KernelDistance(
            self.features(self._reals), name=f"kernel distance {space.name}"
        )
        self.measure = f"{self._distance.name} to {len(self._reals)} {whose} pictures"
        content = hashlib.sha256(space.name.encode())
        content.update(self._reals.contiguous().numpy().tobytes())
        self.fingerprint = content.hexdigest()[:16]
        self.floor: Score | None = None
        if len(others) >= 3:
            self.floor = self._distance(self.features(pictures.take(others)))
        self._finder: CopyFinder | None = None
        self._blind = self.searched < _ENOUGH_SEARCHED * self.trained

    def features(self, images: Tensor) -> Tensor:
        """Of pictures, uint8, (N, 3, S, S): float32, (N, D), on the CPU."""
        parts = [self._space(part.to(self._device)).cpu() for part in torch.split(images, _AT_ONCE)]
        return torch.cat(parts)

    def __call__(self, drawn: Tensor, features: Tensor) -> Measured:
        """Hold drawn pictures against the real ones.

        Args:
            drawn: uint8, (N, 3, S, S), on the CPU.
            features: What `features` says of them, (N, D).
        """
        score, influences = self._distance.measured(features)
        drift = channel_drift(real=self._reals, drawn=drawn)
        return Measured(score, drift, self._copies(drawn), influences)

    def calibrate(self) -> None:
        """Learn what is no copy, unless that is known; a call does so, too."""
        if self._finder is None and not self._blind:
            try:
                self._finder = CopyFinder(self._train, held=self._held)
            except DataError:  # most of the real pictures occur twice
                self._blind = True

    def _copies(self, drawn: Tensor) -> Score | None:
        """The share of copies, by what needs no network."""
        self.calibrate()
        return None if self._finder is None else self._finder(drawn).rate


class Looks(NamedTuple):
    """Seconds that a yardstick takes.

    Attributes:
        once: Before the first score.
        seen: Features of one drawn picture.
        held_against: The rest, for one drawn picture.
    """

    once: float
    seen: float
    held_against: float


def seconds_to_look(
    pictures: Pictures, space: Features, *, held_out: int, device: torch.device
) -> Looks:
    """What a yardstick will take, from a small part of what it does.

    Args:
        pictures: The whole set of the run.
        space: The feature space, on the device to work on.
        held_out: How many pictures are held out.
        device: Where the space is.
    """
    train, held = split(pictures.groups, held_out)
    order = train[_order(len(train))]
    most = max(FEWEST, _BYTES // pictures.take(order[:1]).numel())
    images = pictures.take(order[:most]).cpu()
    few = images[:_AT_ONCE].to(device)
    for _ in range(2):  # what is done for the first time takes longer
        started = time.perf_counter()
        features = space(few).cpu()
        seen = (time.perf_counter() - started) / len(few)
    reals = min(_MOST, len(held) if len(held) >= ENOUGH else len(images))
    sides = [features[torch.arange(n) % len(features)] for n in (reals, _AT_ONCE)]
    distance = KernelDistance(sides[0])
    costs = []
    for _ in range(2):
        started = time.perf_counter()
        distance.measured(sides[1])
        costs.append(time.perf_counter() - started)
    started = time.perf_counter()
    asked = images[:_TIMED]
    with suppress(DataError):  # these are no new pictures, but finding that out takes as long
        CopyFinder(images, held=asked)
    copies = (time.perf_counter() - started) / len(asked)
    calibrated = min(_CALIBRATED, len(held) if len(held) >= _TIMED else len(images))
    if len(images) < _ENOUGH_SEARCHED * len(train):
        copies = 0.0
    once = reals * seen + costs[0] + calibrated * copies
    return Looks(once, seen, costs[1] / _AT_ONCE + copies)


def _order(count: int) -> Tensor:
    """An order of so many, by lot, and the same in every run."""
    generator = torch.Generator().manual_seed(mixed_seed(_REALS, count))
    return torch.randperm(count, generator=generator)
