"""What a run's parts cost on this machine, measured on a model that is thrown away."""

import itertools
import time
from dataclasses import replace

import torch

from kao.config import RunConfig
from kao.data.prepared import PreparedSet
from kao.machine import release
from kao.processes import ALONE, Processes
from kao.runs.cost import checkpoint_bytes, snapshot_bytes
from kao.runs.held_out import images_a_call
from kao.runs.hooks import at_once
from kao.runs.run import draw, load_worse
from kao.runs.score_drawing import opened_space, quickly
from kao.runs.timetable import COUNTS, Costs
from kao.runs.yardstick import FEWEST, seconds_to_look
from kao.training import Length, Trainer

_DISK = 100e6
"""Bytes a second that are written, flushed and hashed: what a slow disk does."""

_STEPS = 2
"""Of the grid that is drawn; its time is multiplied up to the steps of a whole one."""


def probe(
    config: RunConfig,
    prepared: PreparedSet,
    device: torch.device,
    *,
    processes: Processes = ALONE,
    seconds: float = 3.0,
) -> Costs:
    """Train a little, draw a little.

    Args:
        config: With its precision resolved.
        prepared: The pictures.
        device: Where to train.
        processes: Which of several that train together this is; all probe together.
        seconds: About how long to train, after two steps of warming up.
    """
    trainer = config.build(prepared, device, processes=processes)
    image, grid = _seconds_an_image(trainer, seconds), _seconds_a_grid(trainer, config)
    space = opened_space(config, processes) if config.evaluation.every != 0 else None
    drawn = _seconds_to_draw(trainer, config) if space else 0.0
    looks = None
    if space and len(prepared) - int(config.data.held_out) >= FEWEST:
        held_out = int(config.data.held_out)
        looks = seconds_to_look(prepared, space.to(device), held_out=held_out, device=device)
    del trainer
    release(device)  # so that the run finds all memory free
    length = Length.parse(config.length, batch=config.training.batch)
    images = length.expected_images(1 / image)
    hooks = {
        "samples": grid,
        "checkpoints": checkpoint_bytes(config) / _DISK,
    }
    if config.data.held_out != 0:
        hooks["held_out"] = image * images_a_call(round(images / COUNTS["held_out"]))
    if config.ema.snapshots != 0:
        hooks["snapshots"] = snapshot_bytes(config) / _DISK
    if looks is None:
        return Costs(image, hooks)
    looked = looks.seen / processes.world + looks.held_against
    return Costs(image, hooks, drawn, looked, looks.once)


def _seconds_an_image(trainer: Trainer, seconds: float) -> float:
    stream = trainer.batches(0)
    for batch in itertools.islice(stream, 2):
        trainer.step(batch)
    started, images = time.perf_counter(), 0
    for batch in stream:
        trainer.step(batch)
        images += batch.count
        elapsed = time.perf_counter() - started
        # All must agree on when to stop, or one waits for the others' gradients.
        if trainer.processes.any(elapsed > seconds):
            return elapsed / images
    raise AssertionError("the stream of batches has no end")


def _seconds_a_grid(trainer: Trainer, config: RunConfig) -> float:
    """What drawing with the raw weights and with their average takes."""
    config = config.with_learned_grid(trainer.loss.times.knots())
    worse = load_worse(config, device=trainer.device)
    steps = config.sampling.steps
    short = replace(config, sampling=replace(config.sampling, steps=min(steps, _STEPS)))
    trainer.denoiser.eval()

    def drawn(pictures: int) -> float:
        started = time.perf_counter()
        with torch.no_grad(), trainer.gradients.autocast():
            list(
                draw(
                    trainer.denoiser,
                    short,
                    indices=range(pictures),
                    worse=worse,
                    processes=trainer.processes,
                )
            )
        return time.perf_counter() - started

    drawn(1)
    return 2 * drawn(config.hooks.pictures) * steps / short.sampling.steps


def _seconds_to_draw(trainer: Trainer, config: RunConfig) -> float:
    """What drawing one picture of a score takes."""
    config = quickly(config.with_learned_grid(trainer.loss.times.knots()))
    worse = load_worse(config, device=trainer.device)
    steps = config.sampling.steps
    short = replace(config, sampling=replace(config.sampling, steps=min(steps, _STEPS)))
    batch = at_once(trainer.device)
    pictures = batch * trainer.processes.world
    trainer.denoiser.eval()
    # The second time counts: what is done for the first time takes longer.
    for _ in range(2):
        started = time.perf_counter()
        with torch.no_grad(), trainer.gradients.autocast():
            drawn = draw(
                trainer.denoiser,
                short,
                indices=range(pictures),
                batch=batch,
                worse=worse,
                processes=trainer.processes,
            )
            list(drawn)
        seconds = time.perf_counter() - started
    return seconds * steps / short.sampling.steps / pictures
