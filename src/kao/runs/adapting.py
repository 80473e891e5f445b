"""Putting a model's weights into a network that is not quite the one they are from.

What both have is kept.  What the new one sees more of is given weights of zero, so that at first it
says what the old one said: more channels or coordinates at its first layer, what was done to a
picture, classes.  What it says more of starts at nothing, too: more channels, a variance.  Of grey
pictures it sees a mixture of the channels, and says the same of each.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kao.config import RunConfig, dump, leaves
from kao.config.run import CHANNELS
from kao.diffusion import LossMoment, Warped
from kao.errors import ConfigError
from kao.networks import EDM2Config
from kao.runs.changes import changed_keys
from kao.runs.restoring import SHAPING

_NETWORK = "network."
_COORDINATES = 2
_GREY = 1
"""Channels of grey pictures."""
_MEAN = (1 / 3, 1 / 3, 1 / 3)
_TURNED = (2 / 3, 2 / 3, -1 / 3)
"""Shares of red, green and blue in what a grey base sees.  They add up to 1; where kernels are used
by their direction alone, so do their squares, or a grey picture would weigh less beside the channel
of ones."""
_NAMED = 4
"""Most names that a sentence spells out."""


class Adapted(NamedTuple):
    """Weights that fit.

    Attributes:
        weights: By the names of the new denoiser's state dict without adapters.
        new: Names of the network's parameters of which something is new.
        notes: Sentences on what was kept and what is new.
    """

    weights: dict[str, Tensor]
    new: tuple[str, ...]
    notes: list[str]


class _Pair(NamedTuple):
    """A parameter as the base has it, as the new network starts with it, and both runs."""

    held: Tensor
    fresh: Tensor
    there: RunConfig
    now: RunConfig
    channels: int  # of the base's pictures


def adapted(weights: Mapping[str, Tensor], *, there: RunConfig, now: RunConfig) -> Adapted:
    """A base's weights in the network of another configuration.

    Args:
        weights: By the names of the base's denoiser's state dict, without adapters.
        there: Configuration of the base.
        now: Of the run that begins with it; its [conditions] has the names of its classes.

    Raises:
        ConfigError: The networks differ in more than what they see and say; the keys are named.
    """
    # Without adapters, which begin as they are drawn.
    plain = replace(now, finetune=replace(now.finetune, train="all"))
    fresh = plain.build_denoiser().state_dict()
    held = dict(weights)
    notes: list[str] = []
    _forget(held, fresh, notes)
    channels = _picture_channels(held, fresh, there, now)
    result: dict[str, Tensor] = {}
    new: list[str] = []
    for name, value in fresh.items():
        part = name.removeprefix(_NETWORK)
        if part in _ADDED and name not in held:
            result[name] = torch.zeros_like(value)
            notes.append(_ADDED[part])
            new.append(part)
        elif name not in held:
            continue
        elif part in _SHAPED and _alike(held[name], value, but=_SHAPED[part].axis):
            fitted = _SHAPED[part].fit(_Pair(held[name], value, there, now, channels))
            result[name] = fitted.weights
            notes += [note for note in (fitted.note,) if note]
            new += [part] if fitted.new else []
        elif held[name].shape == value.shape:
            result[name] = held[name]
    misfit = [name for name in {**fresh, **held} if name not in result]
    if misfit:
        raise ConfigError(_refusal(misfit, there, now))
    notes += _unlearned(now)
    kept = sum(value.numel() for name, value in result.items() if name[len(_NETWORK) :] not in new)
    notes.insert(0, f"{kept:,} weights begin as the base has them.")
    return Adapted(result, tuple(new), notes)


class _Fitted(NamedTuple):
    weights: Tensor
    note: str
    new: bool


def _inputs(pair: _Pair) -> _Fitted:
    """Columns of a first layer: picture channels, then coordinates, each folded by the stem.

    What a network adds by itself behind them, such as a channel of ones, stays.
    """
    held, fresh, there, now, channels = pair
    before, after = _coordinates(there), _coordinates(now)
    fold, beside = divmod(fresh.shape[1], CHANNELS + after)
    result = torch.zeros_like(fresh)
    pictures = fold * min(channels, CHANNELS)
    result[:, :pictures] = held[:, :pictures]
    if channels == _GREY:
        # The columns of a channel lie together, however the stem folds.
        shares = _TURNED if isinstance(now.network, EDM2Config) else _MEAN
        grey = torch.cat([share * held[:, :fold] for share in shares], dim=1)
        result[:, : fold * CHANNELS] = grey
    if before and after:
        end = fold * (CHANNELS + after)
        result[:, fold * CHANNELS : end] = held[:, fold * channels : fold * (channels + before)]
    if beside:
        result[:, -beside:] = held[:, -beside:]
    told = []
    if channels == _GREY:
        told.append(
            f"The base saw grey pictures: at first the network sees one mixture of the {CHANNELS} "
            f"channels and says the same of each, and it learns colours, and their noise, anew."
        )
    elif channels != CHANNELS:
        told.append(
            f"The base saw {channels} channels and this run has {CHANNELS}: the first "
            f"{min(channels, CHANNELS)} keep their weights in the first layer, and those of others "
            f"begin at zero."
        )
    if after > before:
        told.append(
            "The network is told where in a picture it looks, which the base was not: the weights "
            "of the coordinates begin at zero."
        )
    if after < before:
        told.append(
            "The base was told where in a picture it looks, which this run leaves out: it "
            "draws every part as it drew the middle, so its pictures change at first."
        )
    return _Fitted(result, " ".join(told), new=channels < CHANNELS or after > before)


def _outputs(pair: _Pair) -> _Fitted:
    """Rows of a last layer: picture channels, then as many of a variance, folded by the stem."""
    held, fresh, there, now, channels = pair
    before, after = _kinds(there), _kinds(now)
    fold = len(held) // (channels * before)
    result = torch.zeros_like(fresh)
    for kind in range(min(before, after)):
        rows = fold * min(channels, CHANNELS)
        start, end = fold * CHANNELS * kind, fold * channels * kind
        result[start : start + rows] = held[end : end + rows]
        if channels == _GREY:
            result[start : start + fold * CHANNELS] = torch.cat([held[end : end + fold]] * CHANNELS)
    told = ""
    if after != before and held.ndim > 1:
        told = (
            "The variance of each step is new: it begins half-way between its bounds."
            if after > before
            else "The base said the variance of each step, which this run leaves out."
        )
    return _Fitted(result, told, new=channels < CHANNELS or after > before)


def _classes(pair: _Pair) -> _Fitted:
    """Rows of the table of classes: those of equal names, and the last, of no class."""
    held, fresh, there, now, _ = pair
    if there.conditions.names == now.conditions.names:
        return _Fitted(held, "", new=False)
    result = torch.zeros_like(fresh)
    result[-1] = held[-1]
    known = {name: row for row, name in enumerate(there.conditions.names)}
    kept = [name for name in now.conditions.names if name in known]
    for row, name in enumerate(now.conditions.names):
        if name in known:
            result[row] = held[known[name]]
        else:
            result[row] = held[-1]  # it begins as a picture of no class
    more = [name for name in now.conditions.names if name not in known]
    told = f"Of {len(now.conditions.names)} classes {len(kept)} keep what the base knew of them"
    told += f"; new are {_some(more)}, which begin as pictures of no class." if more else "."
    return _Fitted(result, told, new=bool(more))


def _positions(pair: _Pair) -> _Fitted:
    """Learned positions (N, C), row by row of a square: the square at another size."""
    if pair.held.shape == pair.fresh.shape:
        return _Fitted(pair.held, "", new=False)
    before, after = (round(len(each) ** 0.5) for each in (pair.held, pair.fresh))
    square = pair.held.reshape(1, before, before, -1).permute(0, 3, 1, 2)
    moved = F.interpolate(
        square, size=(after, after), mode="bicubic", antialias=after < before, align_corners=False
    )
    told = f"Positions that were learned on {before} x {before} patches are spread over {after} x"
    return _Fitted(
        moved.permute(0, 2, 3, 1).reshape(pair.fresh.shape), f"{told} {after}.", new=False
    )


class _Shaped(NamedTuple):
    axis: int
    fit: Callable[[_Pair], _Fitted]


_SHAPED: Mapping[str, _Shaped] = {
    "conv_in.weight": _Shaped(1, _inputs),
    "conv_out.weight": _Shaped(0, _outputs),
    "conv_out.bias": _Shaped(0, _outputs),
    "classes.weight": _Shaped(0, _classes),
    "positions": _Shaped(0, _positions),
}
"""Parameters that may have another shape along an axis in the new network, and how they get it."""

_ADDED: Mapping[str, str] = {
    "augmented.weight": (
        "The network is told what was done to each picture (data.augment.edm), which the base was "
        "not: those weights begin at zero."
    ),
    "classes.weight": (
        "The network is told the class of each picture, which the base was not: all classes begin "
        "as pictures of none."
    ),
}
"""Parameters that the base may lack, and what the user is told."""


_FITTED = (
    "finetune.",
    "conditions.counts",
    "conditions.drop",
    "conditions.names",
    "data.augment.",
    "network.dropout",
)
"""Keys that shape a network, or nearly, and are no reason why weights of a base do not fit it."""


def _forget(held: dict[str, Tensor], fresh: Mapping[str, Tensor], notes: list[str]) -> None:
    """Take out what the base was told and the new network is not."""
    augmented, classes = (f"{_NETWORK}{part}" for part in _ADDED)
    if augmented in held and augmented not in fresh:
        del held[augmented]
        notes.append(
            "The base was told what was done to each picture, which this run leaves out "
            "(data.augment.edm = 0): it begins with pictures to which nothing was done."
        )
    if classes in held and classes not in fresh:
        none = held.pop(classes)[-1]
        biases = [
            name
            for name, value in held.items()
            if name.startswith(f"{_NETWORK}embed.") and value.shape == none.shape
        ]
        if not biases:
            raise ConfigError(
                "The base was told classes, and its network has no place for what it says of "
                "pictures of none: set conditions.classes = true, with pictures in folders."
            )
        held[biases[-1]] = held[biases[-1]] + none
        notes.append(
            "The base was told classes, which this run leaves out: it begins with what the base "
            "draws where no class is told."
        )


def _unlearned(now: RunConfig) -> list[str]:
    """A sentence on what a loss learns, of which a base's weights tell nothing."""
    learned = [
        key
        for key, learns in (
            ("loss.uncertainty = true", now.loss.uncertainty),
            ("loss.times", isinstance(now.loss.times, LossMoment | Warped)),
        )
        if learns
    ]
    if not learned:
        return []
    return [
        f"What the loss learns of the noise levels ({' and '.join(learned)}) begins anew, without "
        f"what it learned with the base."
    ]


def _picture_channels(
    held: Mapping[str, Tensor], fresh: Mapping[str, Tensor], there: RunConfig, now: RunConfig
) -> int:
    """Channels of the pictures that the base draws, by its last layer."""
    name = f"{_NETWORK}conv_out.weight"
    if name not in held or name not in fresh:
        return CHANNELS
    rows = len(fresh[name]) // (CHANNELS * _kinds(now))  # of one channel
    return max(1, len(held[name]) // (rows * _kinds(there)))


def _alike(held: Tensor, fresh: Tensor, *, but: int) -> bool:
    """Whether two shapes are the same but for one axis."""
    shapes = [[*each.shape[:but], *each.shape[but + 1 :]] for each in (held, fresh)]
    return held.ndim == fresh.ndim and shapes[0] == shapes[1]


def _coordinates(config: RunConfig) -> int:
    curriculum = config.training.curriculum
    return _COORDINATES if curriculum is not None and curriculum.coordinates else 0


def _kinds(config: RunConfig) -> int:
    """How many numbers a network says of each number of a picture."""
    return 2 if config.loss.bound > 0 else 1


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _refusal(misfit: list[str], there: RunConfig, now: RunConfig) -> str:
    before, after = leaves(dump(there)), leaves(dump(now))
    changes = [
        f"{key} = {before.get(key, 'not set')!r} there and {after.get(key, 'not set')!r} now"
        for key in changed_keys(there, now)
        if key.startswith((*SHAPING, "data.size")) and not key.startswith(_FITTED)
    ]
    why = "; ".join(changes[:_NAMED]) or "they are of another network"
    return (
        f"The weights of the base do not fit this network, {misfit[0]} for one: {why}. Leave these "
        f"keys out to keep the base's."
    )
