"""Colour casts: are drawn pictures redder, greener, bluer, brighter than real ones?

A network that is a little wrong at the highest noise levels draws good faces of wrong colours; a
distance between features sees that, and does not say that it is only this.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kao.errors import DataError
from kao.metrics.scores import Z95, Score

CHANNELS = ("red", "green", "blue")

_CASTS = (("red", "cyan"), ("green", "magenta"), ("blue", "yellow"))  # too much, too little
_LEAST = 2
_SHOWN = 0.5  # grey levels; less is not worth a word
_COARSE = 8.0  # grey levels; who can only tell larger differences has found no agreement
_BATCH = 512


def channel_drift(*, real: Tensor, drawn: Tensor) -> tuple[Score, ...]:
    """How far the mean of each channel lies from that of real pictures, drawn less real.

    A picture is one observation, its pixels are not: errors are those of the difference of two
    means of picture means.

    Args:
        real: uint8, (N, 3, H, W), RGB.
        drawn: uint8, (M, 3, H, W).

    Returns:
        Scores of red, green and blue, in grey levels 0..255; 0 is right.

    Raises:
        DataError: There are fewer than two of either.
    """
    for images, whose in ((real, "real"), (drawn, "drawn")):
        if len(images) < _LEAST:
            raise DataError(
                f"{len(images)} {whose} pictures are too few to compare colours; expected "
                f"{_LEAST} or more."
            )
    theirs, ours = _channel_means(real), _channel_means(drawn)
    drift = ours.mean(0) - theirs.mean(0)
    own, other = ours.var(0) / len(ours), theirs.var(0) / len(theirs)
    return tuple(
        Score(
            f"{name} drift",
            drift[c].item(),
            (own + other)[c].sqrt().item(),
            len(drawn),
            own_error=own[c].sqrt().item(),
            better="neither",
        )
        for c, name in enumerate(CHANNELS)
    )


def drift_sentence(scores: Sequence[Score]) -> str:
    """A drift in words: 12.3 grey levels too red and 4.0 too dark, for instance.

    What is common to the channels is brightness, and the channel that differs most from the two
    others is a cast.  What chance may have made is left out: the error of a mean of channels is at
    most the mean of their errors, and, since pictures that are bright are so in all channels, that
    of a difference is at most the root of the sum of squares.  Those bounds are wide, so where
    neither is sure a channel can still be, by its own interval, and is named then.

    Args:
        scores: Of `channel_drift`.
    """
    values, errors = [s.value for s in scores], [s.error for s in scores]
    casts = [value - (sum(values) - value) / 2 for value in values]
    c = max(range(3), key=lambda i: abs(casts[i]))
    cast_error = math.hypot(errors[c], (sum(errors) - errors[c]) / 2)
    found = [
        (sum(values) / 3, sum(errors) / 3, ("bright", "dark")),
        (casts[c], cast_error, _CASTS[c]),
    ]
    told = [
        (abs(value), f"too {words[0] if value > 0 else words[1]}")
        for value, error, words in found
        if abs(value) > max(Z95 * error, _SHOWN)
    ]
    if not told:
        return _without_cast(scores)
    (first, how), *rest = sorted(told, reverse=True)
    more = "".join(f" and {value:.1f} {words}" for value, words in rest)
    return f"Drawn pictures are {first:.1f} grey levels {how}{more}."


def _without_cast(scores: Sequence[Score]) -> str:
    """What is to be said where neither brightness nor a cast is sure."""
    apart = [
        f"{abs(score.value):.1f} grey levels too {'much' if score.value > 0 else 'little'} {name}"
        for name, score in zip(CHANNELS, scores, strict=True)
        if abs(score.value) > _SHOWN and not score.low <= 0 <= score.high
    ]
    if apart:
        return (
            f"Drawn pictures have {' and '.join(apart)}, by the interval of a channel alone: "
            f"neither a brightness nor a cast is sure."
        )
    reach = max(max(abs(s.low), abs(s.high)) for s in scores)
    if reach > _COARSE:
        return (
            f"Colours cannot be told from those of real pictures with so few: the means may be "
            f"{reach:.0f} grey levels apart."
        )
    return f"Colours agree with those of real pictures, within {reach:.1f} grey levels."


def _channel_means(images: Tensor) -> Tensor:
    """Of each picture: (N, 3, H, W) to (N, 3), float64."""
    return torch.cat([batch.double().mean((2, 3)).cpu() for batch in torch.split(images, _BATCH)])
