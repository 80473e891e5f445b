"""How different pictures are from each other.

Neither more nor less is better: a model that draws the same few faces has too little, one that
draws noise has too much.  The number is to agree with that of as many real pictures.
"""

import math

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.pairs import row_blocks, squared_distances
from kao.metrics.scores import Score, jackknife_variance
from kao.metrics.sight import Sight
from kao.metrics.spaces.features import Features
from kao.seeds import mixed_seed

_LEAST = 3  # pictures, or pairs; leaving one out must leave two
_PIXELS = 2**16  # of either side of some pairs at a time: LPIPS has 122 numbers for each


def pairwise_distance(sight: Sight, *, most: int = 5000, seed: int = 0) -> Score:
    """Mean Euclidean distance over all pairs of a set.

    Its standard error is the jackknife's (Efron & Stein 1981): a picture takes part in many pairs,
    so pairs do not vary independently.

    Args:
        sight: The set.
        most: Pictures that take part, chosen at random where there are more.
        seed: Of the choice.

    Raises:
        DataError: There are fewer than three pictures.
    """
    n = min(most, len(sight))
    _check(n, "pictures are too few for distances between them")
    generator = torch.Generator().manual_seed(mixed_seed(seed))
    x = sight.features[torch.randperm(len(sight), generator=generator)[:n]].double()
    x = x - x.mean(0)  # far from zero, squared distances lose digits
    sums = []
    for rows in row_blocks(n, n):
        gaps = squared_distances(x[rows], x)
        gaps[torch.arange(len(rows)), rows] = 0  # no rounding in the distance to itself
        sums.append(gaps.sqrt().sum(1))
    to_others = torch.cat(sums)
    total = to_others.sum()
    left_out = (total - 2 * to_others) / ((n - 1) * (n - 2))
    return Score(
        f"pairwise distance {sight.space}",
        (total / (n * (n - 1))).item(),
        math.sqrt(jackknife_variance(left_out)),
        n,
        better="neither",
    )


def lpips_diversity(images: Tensor, lpips: Features, *, pairs: int = 1000, seed: int = 0) -> Score:
    """Mean LPIPS between two pictures of a set (Zhang et al. 2018).

    Pairs are drawn at random and no picture is in two of them, so they vary independently, and
    the standard error is that of a mean.

    Args:
        images: uint8, (N, 3, S, S).
        lpips: The space in which squared distances are LPIPS.
        pairs: At most so many; fewer where there are not twice as many pictures.
        seed: Of the pairs.

    Raises:
        DataError: There are fewer than six pictures.
    """
    count = min(pairs, len(images) // 2)
    _check(count, "pairs are too few to measure how different pictures are")
    generator = torch.Generator().manual_seed(mixed_seed(seed))
    both = torch.randperm(len(images), generator=generator)[: 2 * count].view(2, count)
    height, width = images.shape[-2:]
    at_once = max(1, _PIXELS // (height * width))
    gaps = torch.cat(
        [
            (lpips(images[one]) - lpips(images[other])).square().sum(1).cpu().double()
            for one, other in zip(*(side.split(at_once) for side in both), strict=True)
        ]
    )
    return Score(
        f"LPIPS diversity {lpips.name}",
        gaps.mean().item(),
        (gaps.std() / count**0.5).item(),
        2 * count,
        better="neither",
    )


def _check(count: int, words: str) -> None:
    if count < _LEAST:
        raise DataError(f"{count} {words}; expected {_LEAST} or more.")
