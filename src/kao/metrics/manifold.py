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
from kao.metrics.scores import Z95, Better, Score, wilson
from kao.metrics.sight import Sight

GROUPS = 20
"""Groups of each set, of which halves are made."""

HALVES = 20
"""Random halves of the groups of a set, each with its complement."""

_NEAR = 3  # k of precision and recall
_WIDE = 5  # k of density and coverage
_LEAST = 2 * GROUPS
_TIE = 1e-9  # of a squared radius: what rounding does to equal distances


def precision_recall_density_coverage(
    *, real: Sight, drawn: Sight, label: str = ""
) -> tuple[Score, ...]:
    """The four numbers, each with its interval.

    Errors are those of random half-sampling (McCarthy 1969; Wolter 2007, ch. 3): both sets are cut
    in half, radii and memberships are found anew in each of the four pairs of halves, and the
    squares of what pairs without a common picture differ by are four times the variance of the
    whole.  Pairs that share their real half give the part of the drawn pictures in recall and
    coverage; precision and density are means over those, and have the error of one.  A picture less
    moves these numbers in steps, for which the jackknife's errors are 1.1 to 2.3 times too large;
    half the pictures less moves them smoothly.  The variance of a share p in halves is brought to
    that of the whole by p (1 - p) of both.  Distances are computed once; of each picture the
    nearest in every group are kept.  Intervals of shares are those of Wilson (1927) for as
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
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (_Balls.around(sight, centre, generator) for sight in (real, drawn))
    found = _memberships(ours, theirs)

    def score(name: str, values: Tensor, whose: _Balls, better: Better, share_of: int) -> Score:
        cells = _cells(values, whose)  # of pictures of one set, by the other's half and their own
        cells = cells if whose is theirs else cells.mT
        centre = values[0, 0].double().mean().item()
        # A share p varies as p (1 - p) does, and that of halves is another one.
        halved = (cells * (1 - cells)).mean().item() if share_of else 0.0
        part = (centre * (1 - centre) / halved if halved > 0 else 1.0) / 4
        own = (cells[..., 0] - cells[..., 1]).square().mean().item() * part
        if whose is theirs:  # beside given real pictures, a mean over independent ones
            own = values[0, 0].double().var().item() / len(drawn)
        pairs = torch.stack([cells[:, 0, 0] - cells[:, 1, 1], cells[:, 0, 1] - cells[:, 1, 0]])
        error = math.sqrt(max(own, pairs.square().mean().item() * part))
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

    return (
        score("precision", found.precise, theirs, "higher", len(drawn)),
        score("recall", found.recalled, ours, "higher", len(real)),
        score("density", found.counts / _WIDE, theirs, "neither", 0),
        score("coverage", found.covered, ours, "higher", len(real)),
    )


@dataclass(frozen=True, eq=False)
class _Balls:
    """A set, in the order of its groups, and the squared radii around its members.

    Attributes:
        x: (N, D), float64.
        groups: Of each, (N,), rising.
        half: Which half a member is in, (1 + HALVES, N), 0 or 1; in row 0 all are in half 0.
        near: Squared distance to the third nearest of the own half, (1 + HALVES, N).
        wide: The same to the fifth nearest.
    """

    x: Tensor
    groups: Tensor
    half: Tensor
    near: Tensor
    wide: Tensor

    @classmethod
    def around(cls, sight: Sight, centre: Tensor, generator: torch.Generator) -> "_Balls":
        x = sight.features[sight.order].double() - centre
        groups = torch.arange(len(x)) * GROUPS // len(x)
        lots = [torch.randperm(GROUPS, generator=generator) % 2 for _ in range(HALVES)]
        halves = torch.stack([torch.zeros(GROUPS, dtype=torch.int64), *lots])
        parts = [(groups == g).nonzero().flatten() for g in range(GROUPS)]
        near = torch.empty(1 + HALVES, len(x), dtype=torch.float64)
        wide = torch.empty_like(near)
        for rows in row_blocks(len(x), len(x)):
            squared = squared_distances(x[rows], x)
            squared[torch.arange(len(rows)), rows] = math.inf  # not its own neighbour
            # The nearest of every group: those of a half are among the rest.
            nearest = torch.cat([_smallest(squared[:, part], _WIDE) for part in parts], dim=1)
            whose = torch.cat([groups[part[:_WIDE]] for part in parts])
            for row, half in enumerate(halves):
                others = half[groups[rows], None] != half[whose]
                ranked = _smallest(nearest.masked_fill(others, math.inf), _WIDE)
                near[row, rows], wide[row, rows] = ranked[:, _NEAR - 1], ranked[:, _WIDE - 1]
        return cls(x, groups, halves[:, groups], near, wide)


@dataclass(frozen=True, eq=False)
class _Memberships:
    """Who lies in whose balls; of each half-sampling, in balls of half 0 and of half 1.

    Attributes:
        precise: Drawn pictures within real balls, (1 + HALVES, 2, M), bool.
        counts: Real balls that a drawn picture lies in, (1 + HALVES, 2, M), float64.
        recalled: Real pictures within drawn balls, (1 + HALVES, 2, N), bool.
        covered: Real balls with a drawn picture of a half in them, (1 + HALVES, 2, N), bool.
    """

    precise: Tensor
    counts: Tensor
    recalled: Tensor
    covered: Tensor


def _memberships(real: _Balls, drawn: _Balls) -> _Memberships:
    """One pass over the distances between the sets."""
    n, m = len(real.x), len(drawn.x)
    precise, recalled, covered = (
        torch.zeros(1 + HALVES, 2, count, dtype=torch.bool) for count in (m, n, n)
    )
    counts = torch.zeros(1 + HALVES, 2, m, dtype=torch.float64)
    reach = torch.maximum(real.wide.amax(0), real.near.amax(0))
    their_reach = drawn.near.amax(0)
    for rows in row_blocks(n, m):
        squared = squared_distances(real.x[rows], drawn.x)
        near = squared <= torch.maximum(reach[rows, None], their_reach) * (1 + _TIE)
        at, j = near.nonzero(as_tuple=True)
        i, d = rows[at], squared[at, j]
        for row, (half, theirs) in enumerate(zip(real.half[:, i], drawn.half[:, j], strict=True)):
            ball = d <= real.near[row, i] * (1 + _TIE)
            precise[row, half[ball], j[ball]] = True
            ball = d <= drawn.near[row, j] * (1 + _TIE)
            recalled[row, theirs[ball], i[ball]] = True
            ball = d < real.wide[row, i] * (1 - _TIE)
            covered[row, theirs[ball], i[ball]] = True
            counts[row].view(-1).index_add_(
                0, half[ball] * m + j[ball], d.new_ones(int(ball.sum()))
            )
    return _Memberships(precise, counts, recalled, covered)


def _cells(values: Tensor, whose: _Balls) -> Tensor:
    """Means in each pair of halves: (HALVES, 2, 2), by the half of the balls and the own one.

    Args:
        values: Of the pictures of a set, by the half of the others, (1 + HALVES, 2, N).
        whose: That set.
    """
    own = torch.stack([1 - whose.half[1:], whose.half[1:]], dim=1).double()  # (HALVES, 2, N)
    return values[1:].double() @ own.mT / own.sum(2)[:, None]


def _smallest(values: Tensor, k: int) -> Tensor:
    """The k smallest of each row, rising; fewer where a row has fewer: (B, C) to (B, k)."""
    return values.topk(min(k, values.shape[1]), dim=1, largest=False).values


def _check(real: Sight, drawn: Sight) -> None:
    for sight, whose in ((real, "real"), (drawn, "drawn")):
        if len(sight) < _LEAST:
            raise DataError(
                f"{len(sight)} pictures ({whose}) are too few for precision and recall; expected "
                f"{_LEAST} or more."
            )
    check_widths(real=real.width, drawn=drawn.width)
