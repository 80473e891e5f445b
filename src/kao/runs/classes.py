"""Which class each picture is drawn of, and where the classes of a run come from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kao.config import RunConfig
from kao.config.conditioning import ConditionsConfig
from kao.data.names import listed
from kao.data.prepared import PreparedSet
from kao.errors import ConfigError, near_miss


def with_classes(config: RunConfig, names: Sequence[str], counts: Sequence[int] = ()) -> RunConfig:
    """The configuration with the classes of its pictures, where the network is told them.

    Args:
        config: Of the run.
        names: Of the classes that the pictures have, in the order of their numbers.
        counts: Pictures of each, as far as they are known.

    Raises:
        ConfigError: It is to be told classes, and there are none, or one alone.
    """
    told = config.conditions
    if not told.classes:
        return config
    if len(names) < 2:
        met = f"one class alone, {names[0]}" if names else "no two such folders"
        raise ConfigError(
            f"conditions.classes = true tells the network which folder a picture is from, and "
            f"{config.data.source} has {met}: put the pictures of each class into a folder of its "
            f"own, or set conditions.classes = false."
        )
    return replace(config, conditions=replace(told, names=tuple(names), counts=tuple(counts)))


def with_classes_of(config: RunConfig, prepared: PreparedSet) -> RunConfig:
    """The configuration with the classes of a prepared set; see `with_classes`."""
    return with_classes(config, prepared.classes, class_counts(prepared))


def class_counts(prepared: PreparedSet) -> tuple[int, ...]:
    """Pictures of each class of a prepared set; empty where it has none."""
    if prepared.labels is None:
        return ()
    named = prepared.labels[prepared.labels >= 0]
    return tuple(np.bincount(named, minlength=len(prepared.classes)).tolist())


def labels_of(
    conditions: ConditionsConfig, indices: Iterable[int], *, classes: Sequence[str] = ()
) -> Tensor | None:
    """The class of each picture of a seed; it depends on nothing but the picture's index.

    Args:
        conditions: Of the run.
        indices: Of the pictures, each 0 or more.
        classes: Names of those that are asked for, which come in turn.  Empty: all of them, in the
            shares that they have among the pictures that were learned from; see `in_shares`.

    Returns:
        int64, (n,); None for a run that is told no classes.

    Raises:
        ConfigError: A class is asked for that the run does not know, or that is told none.
    """
    chosen = [_number(conditions, name) for name in classes]
    if not conditions.names:
        return None
    places = torch.tensor(list(indices), dtype=torch.int64)
    if chosen:
        return torch.tensor(chosen)[places % len(chosen)]
    most = int(places.max()) + 1 if len(places) else 0
    counts = conditions.counts or (1,) * len(conditions.names)
    return torch.from_numpy(in_shares(counts, most))[places]


def _number(conditions: ConditionsConfig, name: str) -> int:
    """The number of a class."""
    if not conditions.names:
        raise ConfigError(
            f'The class "{name}" is asked for, and this model is told no classes: leave it out, or '
            f"train one with conditions.classes = true."
        )
    if name not in conditions.names:
        raise ConfigError(
            f'The model knows no class "{name}"{near_miss(name, conditions.names)}; its classes '
            f"are {listed(conditions.names)}."
        )
    return conditions.names.index(name)


def in_shares(counts: Sequence[int], most: int) -> NDArray[np.int64]:
    """The first classes of an endless order in which each comes as often as its share says.

    Class c comes for the m-th time at (m - 1/2) / counts[c]; of two that come at once, the first
    of the list goes before.  So of any first n pictures each class has its share of n to within
    about one picture (Webster's method of apportionment, Balinski & Young 1982), and classes of
    equal size come in turn.

    Args:
        counts: Pictures of each class, 0 or more, one at least above 0.
        most: How many classes to name.

    Returns:
        int64, (most,): the first ones, whatever `most` is.
    """
    total, classes = sum(counts), np.arange(len(counts))
    # By then every class has come as often as its share, less one half, rounded up.
    enough = (most + len(counts)) / total
    times = [math.ceil(enough * count) + 1 if count else 0 for count in counts]
    label = np.repeat(classes, times)
    before = np.concatenate([np.arange(each) for each in times])
    # Equal quotients of whole numbers are equal in floating point, so that ties are ties.
    when = (2 * before + 1) / np.asarray(counts)[label]
    return label[np.argsort(when, kind="stable")][:most].astype(np.int64)
