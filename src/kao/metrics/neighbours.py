"""The training pictures nearest to a picture.

Distances are root mean squares over the values compared, in grey levels 0..255 where pixels or
their means are.  A picture and its mirror image count as one: training may have shown either.
Many sets hold pictures twice, often mirrored; such a *twin* is passed over, else it would take
the place of a neighbour and make real pictures seem to be copies of each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from kao.errors import DataError
from kao.metrics.pairs import squared_distances
from kao.seeds import mixed_seed

View = Callable[[Tensor], Tensor]
"""What of pictures is compared: uint8 (B, 3, S, S) -> float32 (B, D), in grey levels."""

TWIN = 2.0
"""Pictures nearer than this by pixels, in grey levels, are the same one, coded anew."""

SHIFT = 2
"""Pixels, each way, by which pictures of `_LARGE` and more are shifted; half that below."""

_MEANS = 8
_LARGE = 32
_CANDIDATES = 32  # of pictures that are nearest by means, compared in every shift
_SPARE = 3  # times as many are searched as are wanted, to have enough where twins are dropped
_MIDDLE = 127.5


def pixels(images: Tensor) -> Tensor:
    """All values of uint8 pictures, (B, 3, S, S) -> float32 (B, 3 * S * S)."""
    return images.float().flatten(1)


def coarse(images: Tensor) -> Tensor:
    """Means over 8 x 8 places: composition and colours without detail or small shifts.

    Args:
        images: uint8, (B, 3, S, S).

    Returns:
        float32, (B, 192).
    """
    return adaptive_avg_pool2d(images.float(), _MEANS).flatten(1)


PIXELS, MEANS = "by pixels", f"by {_MEANS} x {_MEANS} means"

VIEWS: dict[str, View] = {PIXELS: pixels, MEANS: coarse}
"""Ways to compare that need no network."""


@dataclass(frozen=True)
class Neighbours:
    """The K pictures nearest to each of Q, the nearest first.

    Attributes:
        distance: Root mean square difference, in the units of the view, float32, (Q, K).
        index: Which of the others, int64, (Q, K).
        mirrored: Whether its mirror image is what is near, bool, (Q, K).
    """

    distance: Tensor
    index: Tensor
    mirrored: Tensor


def nearest(
    pictures: Tensor,
    others: Tensor,
    view: View,
    *,
    k: int,
    own: Tensor | None = None,
    chunk: int = 2048,
    seen: Tensor | None = None,
) -> Neighbours:
    """Search all others, mirrored ones included, a chunk at a time.

    The search is a matrix product, which cancels where two pictures are nearly equal, so the
    distances of those found are then computed from differences.

    Args:
        pictures: uint8, (Q, 3, S, S).
        others: uint8, (N, 3, S, S); each counts once, by the nearer of itself and its mirror
            image.
        view: What is compared.
        k: How many, at least 1; all that there are, if they are fewer.
        own: Index in `others` of each of `pictures`, int64, (Q,), which is passed over; None
            where they are no part of them.
        chunk: Others at a time: memory is chunk * D floats.
        seen: `view(others)`, (N, D), where it is known already: a network takes its time.
    """
    k = min(k, len(others) - (own is not None))
    count = len(pictures)

    def look(rows: slice | Tensor) -> Tensor:
        return view(others[rows]) if seen is None else seen[rows]

    both = torch.cat([view(pictures), view(pictures.flip(-1))])
    middle = both.mean(0)  # differences stay, and squares lose no digits to a common brightness
    queries = both - middle
    best = queries.new_full((count, 0), 0.0)
    index = torch.zeros(count, 0, dtype=torch.int64)
    for start in range(0, len(others), chunk):
        part = look(slice(start, start + chunk)) - middle
        distance = squared_distances(queries, part).view(2, count, len(part)).amin(0)
        if own is not None:
            mine = ((own >= start) & (own < start + len(part))).nonzero().flatten()
            distance[mine, own[mine] - start] = torch.inf
        numbers = torch.arange(start, start + len(part)).expand(count, -1)
        best, index = torch.cat([best, distance], dim=1), torch.cat([index, numbers], dim=1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1, largest=False)
        index = index.gather(1, kept)
    distances, mirrored = [], []
    for straight, flipped, found in zip(*both.view(2, count, -1), index, strict=True):
        theirs = look(found)
        pair = torch.stack([straight - theirs, flipped - theirs]).square().mean(2).sqrt()
        distances.append(pair.amin(0))
        mirrored.append(pair[1] < pair[0])
    return _in_order(distances, index, mirrored)


def nearest_shifted(
    pictures: Tensor,
    others: Tensor,
    *,
    k: int,
    own: Tensor | None = None,
    candidates: int = _CANDIDATES,
) -> Neighbours:
    """Search by pixels, shifts of a pixel or two and mirror images included.

    The middle of each of the others, all but a margin as wide as the shift, is compared with
    every window of that size of a picture: so nothing has to be made up beyond the edges.  Only
    the `candidates` that are nearest by `coarse`, which hardly sees such shifts, are compared in
    this way; all others, in all shifts, would take a hundred times as long.

    Args:
        pictures: uint8, (Q, 3, S, S), S of 3 or more.
        others: uint8, (N, 3, S, S).
        k: How many, 1 to `candidates`; all that there are, if they are fewer.
        own: As of `nearest`.
        candidates: How many are compared.
    """
    margin = SHIFT if pictures.shape[-1] >= _LARGE else SHIFT // 2
    inner = slice(margin, pictures.shape[-1] - margin)
    near = nearest(pictures, others, coarse, k=candidates, own=own)
    distances, mirrored = [], []
    for picture, found in zip(pictures, near.index, strict=True):
        windows = _windows(picture, margin)
        middles = pixels(others[found][..., inner, inner]) - _MIDDLE
        product = torch.addmm(windows.square().sum(1), middles, windows.T, beta=0.5, alpha=-1)
        best = product.argmin(1)
        distances.append((middles - windows[best]).square().mean(1).sqrt())
        mirrored.append(best >= len(windows) // 2)
    found = _in_order(distances, near.index, mirrored)
    return Neighbours(found.distance[:, :k], found.index[:, :k], found.mirrored[:, :k])


def _windows(picture: Tensor, margin: int) -> Tensor:
    """All windows of a picture, then those of its mirror image: (2 (2 margin + 1)^2, D)."""
    side = picture.shape[-1] - 2 * margin
    both = torch.stack([picture, picture.flip(-1)]).float() - _MIDDLE
    windows = both.unfold(2, side, 1).unfold(3, side, 1)  # (2, 3, places, places, side, side)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)


def _in_order(distances: list[Tensor], index: Tensor, mirrored: list[Tensor]) -> Neighbours:
    """What was found, the nearest first."""
    distance, order = torch.stack(distances).sort(dim=1, stable=True)
    return Neighbours(distance, index.gather(1, order), torch.stack(mirrored).gather(1, order))


def without_twins(found: Neighbours, others: Tensor, *, k: int) -> Neighbours:
    """The first k neighbours of each picture that are no twins of nearer ones.

    Args:
        found: More than k, for some will go.
        others: What was searched, uint8, (N, 3, S, S).
        k: How many to keep; a picture with too few is filled up with twins, the nearest first.
    """
    kept = []
    for numbers in found.index:
        seen = pixels(others[numbers]) - _MIDDLE
        both = torch.cat([seen, pixels(others[numbers].flip(-1)) - _MIDDLE])
        gaps = squared_distances(seen, both)
        # The product is right to a hundredth of the square of TWIN.
        twins = (gaps / seen.shape[1] < TWIN**2).view(len(seen), 2, -1).any(1)
        again = twins.tril(-1).any(1)
        kept.append(again.int().sort(stable=True).indices[:k].sort().values)
    order = torch.stack(kept)
    columns = (found.distance, found.index, found.mirrored)
    return Neighbours(*(column.gather(1, order) for column in columns))


class Usual(NamedTuple):
    """What is usual among real pictures.

    Attributes:
        distance: Median distance to the nearest other picture that is no twin, grey levels.
        asked: Of how many pictures.
        twins: Share of them that occur again in the set, mirrored or not, 0..1.
    """

    distance: float
    asked: int
    twins: float


def usual_distance(images: Tensor, view: View, *, most: int = 256, seed: int = 0) -> Usual:
    """How far real pictures are from each other, to compare samples with.

    Args:
        images: uint8, (N, 3, S, S), at least two.
        view: What is compared.
        most: At most so many, chosen at random, are asked; they are compared with all.
        seed: Of the choice.
    """
    generator = torch.Generator().manual_seed(mixed_seed(seed))
    asked = torch.randperm(len(images), generator=generator)[:most]
    found = nearest(images[asked], images, view, k=8, own=asked)
    gaps = []
    for picture, numbers in zip(images[asked], found.index, strict=True):
        both = torch.stack([picture, picture.flip(-1)])
        differences = pixels(both)[:, None] - pixels(images[numbers])
        gaps.append(differences.square().mean(2).sqrt().amin(0))
    twins = torch.stack(gaps) < TWIN
    # Where all eight are twins, the last is the best that is known.
    first = (
        twins.int().argmin(1, keepdim=True).where(~twins.all(1, keepdim=True), -1 + twins.shape[1])
    )
    distance = found.distance.gather(1, first).median()
    return Usual(float(distance), len(asked), float(twins.any(1).double().mean()))


@dataclass(frozen=True)
class Comparison:
    """Samples, their neighbours in each view, and what is usual among real pictures.

    Attributes:
        samples: uint8, (Q, 3, S, S).
        others: The real pictures, uint8, (N, 3, S, S).
        found: By the names of `VIEWS`.
        usual: By the same names.
    """

    samples: Tensor
    others: Tensor
    found: dict[str, Neighbours]
    usual: dict[str, Usual]

    def sentence(self) -> str:
        """The medians in words."""
        names = list(self.found)
        samples = [
            f"{found.distance[:, 0].median():.1f} {name}" for name, found in self.found.items()
        ]
        real = [f"{self.usual[name].distance:.1f}" for name in names]
        usual = self.usual[names[0]]
        again = f" ({usual.twins:.0%} of them occur again, mirrored or not, which is not counted)"
        return (
            f"Median distance to the nearest of {len(self.others):,} training pictures: "
            f"{' and '.join(samples)} for {len(self.samples)} samples, {' and '.join(real)} for "
            f"{usual.asked} real pictures{again if usual.twins else ''}."
        )


def compare(samples: Tensor, others: Tensor, *, k: int, seed: int = 0) -> Comparison:
    """Find the neighbours of samples in every view, and what is usual.

    Args:
        samples: uint8, (Q, 3, S, S), at least one.
        others: The training pictures, uint8, (N, 3, S, S).
        k: Neighbours a sample and view.
        seed: Of the choice of real pictures to compare with.

    Raises:
        DataError: There are fewer than two training pictures.
    """
    if len(others) < 2:
        raise DataError(
            f"Neighbours are compared with those of real pictures, and there is {len(others)}: "
            f"train on two pictures or more."
        )
    found = {
        name: without_twins(nearest(samples, others, view, k=_SPARE * k), others, k=k)
        for name, view in VIEWS.items()
    }
    usual = {name: usual_distance(others, view, seed=seed) for name, view in VIEWS.items()}
    return Comparison(samples, others, found, usual)
