"""Pictures that are nearly the same: the same photograph saved again, resized, retouched, mirrored.

Two pictures are near duplicates when both of these hold for their 9 x 8 thumbnails, or for one
thumbnail and the mirror image of the other:

1. their difference hashes, 64 bits that say where grey values rise from left to right,
   differ in at most `DISTANCE` bits;
2. the thumbnails differ by at most `DIFFERENCE` grey levels on average.

The first finds candidates without comparing all pairs; the second is needed because aligned
faces, drawn faces and plain pictures have similar hashes without being similar.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

DISTANCE = 3
"""Bits of 64 in which the hashes of near duplicates may differ."""

DIFFERENCE = 5.0
"""Mean absolute difference of the thumbnails of near duplicates, in levels of 0..255."""

_CROWD = 64  # in a crowd of equal keys, how far apart (in sorted order) pictures are compared
_BITS_SET = np.array([number.bit_count() for number in range(256)], np.uint8)


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce a picture to what `near_duplicates` compares.

    Args:
        image: uint8, (3, S, S).

    Returns:
        uint8, (3, 8, 9).
    """
    small = interpolate(torch.from_numpy(image)[None], size=(8, 9), mode="bilinear", antialias=True)
    return small[0].contiguous().numpy()


def difference_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """One bit for each pair of horizontal neighbours: is the right one brighter?

    Args:
        thumbnails: uint8, (N, 3, 8, 9).

    Returns:
        uint64, (N,).
    """
    # Rec. 601 luma in thousandths: whole numbers, the same on every machine.
    red, green, blue = (thumbnails[:, channel].astype(np.int32) for channel in range(3))
    grey = 299 * red + 587 * green + 114 * blue
    rises = grey[:, :, 1:] > grey[:, :, :-1]
    return np.packbits(rises.reshape(-1, 64), axis=1).view(np.uint64)[:, 0]


def near_duplicates(thumbnails: NDArray[np.uint8]) -> list[list[int]]:
    """Groups of near duplicates, as connected components of the pairs that are near.

    Mirror images count.  Time and memory grow in proportion to N.  Nothing is missed, unless more
    than a few dozen pictures share 28 bits of their hash; of such a crowd only neighbours are
    compared.

    Args:
        thumbnails: uint8, (N, 3, 8, 9).

    Returns:
        Groups of two or more indices in rising order, the largest group first.
    """
    count = len(thumbnails)
    leader = np.arange(count)
    both = np.concatenate([thumbnails, thumbnails[..., ::-1]])
    for first, second in _candidates(difference_hashes(both)):
        # In a crowd most pairs are linked through others already, and need no second look.
        apart = leader[first % count] != leader[second % count]
        first, second = first[apart], second[apart]
        alike = _difference(both, first, second) <= DIFFERENCE
        if alike.any():
            leader = _joined(leader, first[alike] % count, second[alike] % count)

    groups: dict[int, list[int]] = {}
    for index in np.flatnonzero(leader != np.arange(len(leader))).tolist():
        start = int(leader[index])
        groups.setdefault(start, [start]).append(index)
    return sorted(groups.values(), key=lambda group: (-len(group), group))


def _joined(
    leader: NDArray[np.intp], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Each index's leader, the smallest of its group, once the pairs are in one group each."""
    leader = leader.copy()

    def leading(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]  # halves the path for the next one
            index = int(leader[index])
        return index

    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        one, other = leading(one), leading(other)
        leader[max(one, other)] = min(one, other)
    while (leader[leader] != leader).any():
        leader = leader[leader]
    return leader


def _candidates(
    hashes: NDArray[np.uint64],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Arrays of pairs whose hashes are near; a pair may come more than once."""
    for keys in _keys(hashes):
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        at = np.arange(len(keys))
        for apart in range(1, _CROWD):
            at = at[: np.searchsorted(at, len(keys) - apart)]
            at = at[keys[at] == keys[at + apart]]
            if not len(at):
                break
            first, second = order[at], order[at + apart]
            near = _distance(hashes[first], hashes[second]) <= DISTANCE
            yield first[near], second[near]


def _keys(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.uint64]]:
    """Sixteen keys of 28 bits, at least one of which any two hashes at distance 3 share.

    Three differing bits leave one of four blocks of 16 bits untouched, and of the 48 other bits
    one of four blocks of 12 (Manku, Jain & Das Sarma 2007, section 3.1).
    """
    for block in range(0, 64, 16):
        turned = (
            hashes
            if block == 0
            else (hashes << np.uint64(block)) | (hashes >> np.uint64(64 - block))
        )
        for piece in range(0, 48, 12):
            rest = (turned >> np.uint64(piece)) & np.uint64(0xFFF)
            yield (turned >> np.uint64(48) << np.uint64(12)) | rest


def _distance(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    return _BITS_SET[(a ^ b).view(np.uint8).reshape(-1, 8)].sum(1, dtype=np.int64)


def _difference(
    thumbnails: NDArray[np.uint8], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.float64]:
    gap = thumbnails[first].astype(np.int16) - thumbnails[second]
    return np.abs(gap).mean((1, 2, 3))
