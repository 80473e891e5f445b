"""Precision, recall, density and coverage: is it real, and is everything there?

Each set is a union of balls around its members, as wide as the distance to the k-th nearest other
member.  Precision is the share of drawn pictures within the real balls, recall that of real ones
within the drawn balls (Kynkäänniemi et al. 2019, k = 3); density counts how many real balls a
drawn picture lies in, relative to k, and coverage is the share of real balls with a drawn picture
in them (Naeem et al. 2020, k = 5).

All four depend on the numbers of both sets, so they compare at equal numbers only, and even a
perfect model is short of 1: hold them against those of real pictures.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.checks import check_widths
from kao.metrics.pairs import row_blocks, squared_distances
from kao.metrics.scores import Z95, Better, Score, jackknife_variance, wilson
from kao.metrics.sight import Sight

GROUPS = 20
"""Groups of each set that are left out in turn."""

_NEAR = 3  # k of precision and recall
_WIDE = 5  # k of density and coverage
_LEAST = 2 * GROUPS
_TIE = 1e-9  # of a squared radius: what rounding does to equal distances


def precision_recall_density_coverage(
    *, real: Sight, drawn: Sight, label: str = ""
) -> tuple[Score, ...]:
    """The four numbers, each with its interval.

    Errors are those of a delete-group jackknife (Wolter 2007, ch. 4) over both sets: radii and
    memberships are found anew without each group.  Distances are computed once; of each picture
    the nearest in every group are kept.  Intervals of shares are those of Wilson (1927) for as
    many independent pictures as would have that error, so they stay within 0..1.

    Balls are closed for precision and recall and open for density and coverage, as published.

    Args:
        real: Real pictures.
        drawn: Generated ones, in the same space.
        label: Put after the names.

    Raises:
        DataError: Either has fewer than 40 pictures, or the widths differ.
    """
    _check(real, drawn)
    centre = real.gaussian.mean  # far from zero, squared distances lose digits
    ours, theirs = _Balls.around(real, centre), _Balls.around(drawn, centre)
    found = _memberships(ours, theirs)

    covered = found.nearest.amin(1) < ours.wide * (1 - _TIE)  # (GROUPS + 1, N)
    without_real = torch.stack(
        [row[ours.groups != g].double().mean() for g, row in enumerate(covered[1:])]
    )
    others = torch.stack([_without(found.nearest, g).amin(1) for g in range(GROUPS)])
    without_drawn = (others < ours.wide[0] * (1 - _TIE)).double().mean(1)

    def score(
        name: str, value: Tensor, left_out: tuple[Tensor, Tensor], better: Better, share_of: int
    ) -> Score:
        by_real, own = (jackknife_variance(values) for values in left_out)
        error, centre = math.sqrt(by_real + own), value.item()
        low, high = centre - Z95 * error, centre + Z95 * error
        return Score(
            f"{name} {label}".strip(),
            centre,
            error,
            len(drawn),
            own_error=math.sqrt(own),
            interval=wilson(centre, error, share_of) if share_of else (max(0.0, low), high),
            better=better,
        )

    precise, recalled = found.precise.double(), found.recalled.double()
    density = found.counts / _WIDE
    return (
        score(
            "precision",
            precise[0].mean(),
            (precise[1:].mean(1), _means_without(precise[0], theirs.groups)),
            "higher",
            len(drawn),
        ),
        score(
            "recall",
            recalled[0].mean(),
            (_means_without(recalled[0], ours.groups), recalled[1:].mean(1)),
            "higher",
            len(real),
        ),
        score(
            "density",
            density[0].mean(),
            (density[1:].mean(1), _means_without(density[0], theirs.groups)),
            "neither",
            0,
        ),
        score(
            "coverage",
            covered[0].double().mean(),
            (without_real, without_drawn),
            "higher",
            len(real),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Balls:
    """A set, in the order of its groups, and the squared radii around its members.

    Attributes:
        x: (N, D), float64.
        groups: Of each, (N,), rising.
        near: Squared distance to the third nearest: of all, and without each group,
            (GROUPS + 1, N); those of a member without its own group are of no use.
        wide: The same to the fifth nearest.
    """

    x: Tensor
    groups: Tensor
    near: Tensor
    wide: Tensor

    @classmethod
    def around(cls, sight: Sight, centre: Tensor) -> "_Balls":
        x = sight.features[sight.order].double() - centre
        groups = torch.arange(len(x)) * GROUPS // len(x)
        parts = [(groups == g).nonzero().flatten() for g in range(GROUPS)]
        near = torch.empty(GROUPS + 1, len(x), dtype=torch.float64)
        wide = torch.empty_like(near)
        for rows in row_blocks(len(x), len(x)):
            squared = squared_distances(x[rows], x)
            squared[torch.arange(len(rows)), rows] = math.inf  # not its own neighbour
            # The nearest of every group: those without a group are among the rest.
            nearest = [_smallest(squared[:, part], _WIDE) for part in parts]
            for kept in range(GROUPS + 1):
                rest = [each for g, each in enumerate(nearest) if g != kept - 1]
                ranked = _smallest(torch.cat(rest, dim=1), _WIDE)
                near[kept, rows], wide[kept, rows] = ranked[:, _NEAR - 1], ranked[:, _WIDE - 1]
        return cls(x, groups, near, wide)


@dataclass(frozen=True, eq=False)
class _Memberships:
    """Who lies in whose balls; row 0 with all, the others without a group of the balls.

    Attributes:
        precise: Drawn pictures within real balls, (GROUPS + 1, M), bool.
        counts: Real balls that a drawn picture lies in, (GROUPS + 1, M), float64.
        recalled: Real pictures within drawn balls, (GROUPS + 1, N), bool.
        nearest: Squared distance of a real picture to the nearest drawn one of each group,
            (N, GROUPS).
    """

    precise: Tensor
    counts: Tensor
    recalled: Tensor
    nearest: Tensor


def _memberships(real: _Balls, drawn: _Balls) -> _Memberships:
    """One pass over the distances between the sets."""
    n, m = len(real.x), len(drawn.x)
    precise = torch.zeros(GROUPS + 1, m, dtype=torch.bool)
    counts = torch.zeros(GROUPS + 1, m, dtype=torch.float64)
    recalled = torch.zeros(GROUPS + 1, n, dtype=torch.bool)
    nearest = torch.empty(n, GROUPS, dtype=torch.float64)
    # Leaving out only widens balls, so few pairs have to be looked at more than once.
    reach, their_reach = real.wide.amax(0), drawn.near.amax(0)
    parts = [(drawn.groups == g).nonzero().flatten() for g in range(GROUPS)]
    for rows in row_blocks(n, m):
        squared = squared_distances(real.x[rows], drawn.x)
        nearest[rows] = torch.stack([squared[:, part].amin(1) for part in parts], dim=1)
        near = squared <= torch.maximum(reach[rows, None], their_reach) * (1 + _TIE)
        at, j = near.nonzero(as_tuple=True)
        i, d = rows[at], squared[at, j]
        for kept in range(GROUPS + 1):
            ball = real.groups[i] != kept - 1
            precise[kept, j[ball & (d <= real.near[kept, i] * (1 + _TIE))]] = True
            within = j[ball & (d < real.wide[kept, i] * (1 - _TIE))]
            counts[kept] += torch.bincount(within, minlength=m)
            ball = drawn.groups[j] != kept - 1
            recalled[kept, i[ball & (d <= drawn.near[kept, j] * (1 + _TIE))]] = True
    return _Memberships(precise, counts, recalled, nearest)


def _smallest(values: Tensor, k: int) -> Tensor:
    """The k smallest of each row, rising; fewer where a row has fewer: (B, C) to (B, k)."""
    return values.topk(min(k, values.shape[1]), dim=1, largest=False).values


def _without(columns: Tensor, g: int) -> Tensor:
    return torch.cat([columns[:, :g], columns[:, g + 1 :]], dim=1)


def _means_without(values: Tensor, groups: Tensor) -> Tensor:
    """Mean of the values of all groups but one, of each in turn: (N,), (N,) to (GROUPS,)."""
    sums = torch.zeros(GROUPS, dtype=torch.float64).index_add_(0, groups, values.double())
    sizes = torch.bincount(groups, minlength=GROUPS)
    return (sums.sum() - sums) / (len(values) - sizes)


def _check(real: Sight, drawn: Sight) -> None:
    for sight, whose in ((real, "real"), (drawn, "drawn")):
        if len(sight) < _LEAST:
            raise DataError(
                f"{len(sight)} pictures ({whose}) are too few for precision and recall; expected "
                f"{_LEAST} or more."
            )
    check_widths(real=real.width, drawn=drawn.width)
