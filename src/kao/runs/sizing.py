"""What a run leaves open until it starts, filled in from machine, pictures and clock."""

import itertools
import time
from dataclasses import replace
from typing import Literal

import torch

from kao.config import RunConfig, Table, leaves
from kao.data.prepared import PreparedSet
from kao.machine import best_precision
from kao.networks import UNetConfig
from kao.training import Length

SMALL_SET = 5_000
"""Pictures below which a recipe that nobody named adds dropout: each is seen dozens of times."""

_ATTENDED = 16
"""Largest feature map, in pixels, that gets attention by itself: its cost grows with size^4."""

_LINES, _GRIDS, _CHECKPOINTS = 400, 8, 10
_RARE = 100
"""Fewest steps between grids or checkpoints, so that a very short run still mostly trains."""


def default_recipe(device: torch.device, asked: Table) -> str:
    """The recipe for whoever names none: by the size asked for, or else by the machine.

    Args:
        device: Where it will train.
        asked: What the user did set.
    """
    size = leaves(asked).get("data.size", 64 if device.type == "cuda" else 32)
    return "faces-64" if isinstance(size, int) and size >= 48 else "faces-32"


def fitted(config: RunConfig, asked: Table) -> RunConfig:
    """Put the attention of a recipe that nobody named where this size has its small maps.

    Args:
        config: Of the default recipe, at any size.
        asked: What the user did set, which stays.
    """
    network = config.network
    if not isinstance(network, UNetConfig) or "network.attention" in leaves(asked):
        return config
    maps = tuple(size for size in network.sizes(config.data.size)[-2:] if size <= _ATTENDED)
    return replace(config, network=replace(network, attention=maps))


def regularised(config: RunConfig, asked: Table, pictures: int) -> RunConfig:
    """Add dropout to a recipe that nobody named where pictures are few.

    Args:
        config: Of the default recipe.
        asked: What the user did set, which stays.
        pictures: How many there are.
    """
    network = config.network
    if (
        pictures >= SMALL_SET
        or not isinstance(network, UNetConfig)
        or "network.dropout" in leaves(asked)
    ):
        return config
    return replace(config, network=replace(network, dropout=0.1))


def with_precision(config: RunConfig, device: torch.device) -> RunConfig:
    """Replace precision "auto" by what the hardware does best."""
    if config.training.precision != "auto":
        return config
    training = replace(config.training, precision=best_precision(device))
    return replace(config, training=training)


def resolve(config: RunConfig, prepared: PreparedSet, device: torch.device) -> RunConfig:
    """Replace every "auto" by a value, so that run.toml says what was run.

    Args:
        config: Checked.
        prepared: The pictures.
        device: Where it will train.
    """
    config = with_precision(config, device)
    config = replace(config, data=replace(config.data, fingerprint=prepared.fingerprint))
    hooks = config.hooks
    if "auto" not in (hooks.log, hooks.samples, hooks.checkpoints):
        return config
    length = Length.parse(config.length, batch=config.training.batch)
    total = length.images or length.expected_images(images_per_second(config, prepared, device))
    return with_intervals(config, total)


def with_intervals(config: RunConfig, images: int) -> RunConfig:
    """Replace the intervals that are "auto" by shares of a run of so many images."""
    hooks = config.hooks

    def every(asked: int | Literal["auto"], times: int, *, least: int = 1) -> int:
        """Images between two of `times` calls, with no fewer than `least` steps."""
        return max(least * config.training.batch, images // times) if asked == "auto" else asked

    return replace(
        config,
        hooks=replace(
            hooks,
            log=every(hooks.log, _LINES),
            samples=every(hooks.samples, _GRIDS, least=_RARE),
            checkpoints=every(hooks.checkpoints, _CHECKPOINTS, least=_RARE),
        ),
    )


def images_per_second(
    config: RunConfig, prepared: PreparedSet, device: torch.device, *, seconds: float = 3.0
) -> float:
    """Probe the training speed on a model that is thrown away.

    Args:
        config: With its precision resolved.
        prepared: The pictures.
        device: Where to train.
        seconds: About how long to measure, after two steps of warming up.
    """
    trainer = config.build(prepared, device)
    stream = trainer.batches(0)
    for batch in itertools.islice(stream, 2):
        trainer.step(batch)
    started, images = time.perf_counter(), 0
    for batch in stream:
        trainer.step(batch)
        images += len(batch.images)
        elapsed = time.perf_counter() - started
        if elapsed > seconds:
            return images / elapsed
    raise AssertionError("the stream of batches has no end")
