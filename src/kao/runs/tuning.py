"""Measuring ways to draw: which sampler, grid and steps are worth their network calls.

Every way draws from the same seeds and is held against the same real pictures, so that
differences come from the way alone.  `tune` is a generator of measurements: progress, limits of
time and stopping early are loops in the caller.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kao.config import RunConfig, SamplingConfig
from kao.data import open_source, prepare
from kao.diffusion import DDIM, Denoiser
from kao.metrics import Features, Score
from kao.runs.budgets import Candidate, Conditions
from kao.runs.pictures import some_real
from kao.runs.run import Run, draw, load_worse
from kao.runs.weights import fingerprint

SIZABLE = 64
"""Pictures of the first round of a search; with fewer, nothing can be told apart."""

_KEYS = tuple[SamplingConfig, int]


@dataclass(frozen=True)
class RealPictures:
    """What is drawn is held against these.

    Attributes:
        images: uint8, (N, 3, S, S).
        fingerprint: Of the prepared set that they come from.
    """

    images: Tensor
    fingerprint: str


def real_pictures(
    config: RunConfig, *, n: int, seed: int, source: str | None = None
) -> RealPictures:
    """Some real pictures, chosen at random.

    Args:
        config: Of the run: its pictures, and how they were cut.
        n: How many; fewer if there are fewer.
        seed: Of the choice.
        source: Other pictures, as `kao train` takes them; they are prepared if need be.

    Raises:
        DataError: There are none, or the run's own are not where they were.
    """
    if source is None:
        return RealPictures(some_real(config, n=n, seed=seed), config.data.fingerprint)
    opened = open_source(source, size=config.data.size)
    prepared = prepare(opened, size=config.data.size, crop=config.data.crop)
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(prepared), generator=generator)[:n].sort().values
    images = torch.from_numpy(prepared.images[indices.numpy()].copy())
    return RealPictures(images, prepared.fingerprint)


class Bench:
    """A model, noise and real pictures, under which ways to draw are measured.

    Args:
        run: The run.
        denoiser: Its model, on the device to measure on, in eval mode.
        real: Real pictures.
        features: The space to compare in, on any device; it is moved to the model's if it is a
            module.
        distance: From features of real pictures, (N, D), to what scores those of drawn ones:
            `metrics.KernelDistance`.
        measure: Name of the distance, for the conditions.
        seed: Of the pictures drawn, and of the choice of `real`.
        batch: Pictures at a time.
        checkpoint: Images that the model has seen.

    Raises:
        CheckpointError: A worse model is to guide and is missing or damaged.
        ConfigError: It is of other pictures, or another schedule.
        DataError: There are fewer real pictures than the distance needs.
    """

    def __init__(
        self,
        run: Run,
        denoiser: Denoiser,
        real: RealPictures,
        *,
        features: Features,
        distance: Callable[[Tensor], Callable[[Tensor], Score]],
        measure: str,
        seed: int,
        batch: int,
        checkpoint: int,
    ):
        self.run, self.denoiser, self.features = run, denoiser, features
        self.device = next(denoiser.parameters()).device
        self.worse = load_worse(run.config, device=self.device)
        if isinstance(features, nn.Module):
            features.to(self.device)
        self.distance = distance(self.features_of(real.images, batch=256))
        self.conditions = Conditions(
            features=features.name,
            measure=measure,
            real=real.fingerprint,
            reals=len(real.images),
            checkpoint=checkpoint,
            model=fingerprint(denoiser),
            worse=fingerprint(self.worse) if self.worse else "",
            seed=seed,
            batch=batch,
            device=self.device.type,
        )

    def features_of(self, images: Tensor, *, batch: int) -> Tensor:
        """Features of uint8 pictures (N, 3, S, S), on the CPU: float32, (N, D)."""
        starts = range(0, len(images), batch)
        chunks = (images[start : start + batch].to(self.device) for start in starts)
        return torch.cat([self.features(chunk).cpu() for chunk in chunks])

    def warm_up(self) -> None:
        """Draw one batch in one step, so that the first measurement is not the slowest."""
        config = self.run.drawing(replace(self.run.config.sampling, sampler=DDIM(), steps=1))
        for images in self.draw(config, range(self.conditions.batch)):
            self.features_of(images, batch=self.conditions.batch)

    def draw(self, config: RunConfig, indices: Sequence[int]) -> Iterator[Tensor]:
        """Pictures of the seed, as `runs.draw`; nothing is loaded."""
        return draw(
            self.denoiser,
            config,
            indices=indices,
            seed=self.conditions.seed,
            batch=self.conditions.batch,
            worse=self.worse,
        )

    def counted(self) -> AbstractContextManager["Calls"]:
        """Count the network calls inside the block: those of the worse model too."""
        return counted(self.denoiser, *([self.worse] if self.worse else []))

    def trial(self, sampling: SamplingConfig) -> "Trial":
        """A way to draw, of which nothing is drawn yet."""
        return Trial(self, sampling)


class Trial:
    """One way to draw on a bench, with the features of what it has drawn so far.

    Args:
        bench: What to measure on.
        sampling: The way to draw.
    """

    def __init__(self, bench: Bench, sampling: SamplingConfig):
        self._bench, self._sampling = bench, sampling
        self._features: list[Tensor] = []
        self._drawn, self._calls, self._seconds = 0, 0, 0.0

    def measure(self, n: int) -> Candidate:
        """Draw pictures until there are `n`, those of indices 0..n - 1 of the seed; score them.

        Raises:
            DataError: n is below three, or the pictures are not finite.
        """
        bench = self._bench
        config = bench.run.drawing(self._sampling)
        missing = range(self._drawn, n)
        with bench.counted() as calls:
            start = time.perf_counter()
            for images in bench.draw(config, missing):
                self._seconds += time.perf_counter() - start
                self._features.append(bench.features_of(images, batch=len(images)))
                start = time.perf_counter()
        self._drawn += len(missing)
        self._calls += calls.images
        score = bench.distance(torch.cat(self._features))
        return Candidate(
            calls=round(self._calls / self._drawn),
            score=score.value,
            error=score.error,
            n=score.samples,
            seconds=self._seconds / self._drawn,
            sampling=self._sampling,
        )


class Calls:
    """Counts the images that go through modules; a forward hook.

    Attributes:
        images: So far.
    """

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """One call; `inputs` begins with the images."""
        self.images += len(inputs[0])


@contextmanager
def counted(*models: nn.Module) -> Iterator[Calls]:
    """Count what goes through models inside the block, whatever wraps them."""
    calls = Calls()
    with ExitStack() as stack:
        for model in models:
            stack.callback(model.register_forward_pre_hook(calls).remove)
        yield calls


def tune(
    bench: Bench,
    ways: Sequence[SamplingConfig],
    *,
    n: int,
    known: Mapping[_KEYS, Candidate] | None = None,
) -> Iterator[Candidate]:
    """Measure ways to draw, in two rounds: each on a quarter of the pictures, then the rest.

    Between the rounds those go that are `hopeless`.  A way's later measurement replaces its
    earlier one.

    Args:
        bench: What to measure on.
        ways: In the order to measure them.
        n: Pictures of each in the end, three or more; below 4 * `SIZABLE` there is one round.
        known: Earlier measurements on an equal bench, which are not made again.

    Yields:
        Measurements as they are made.

    Raises:
        DataError: n is below three.
    """
    known = known or {}
    rounds = (n // 4, n) if n >= 4 * SIZABLE else (n,)
    trials = {sampling: bench.trial(sampling) for sampling in ways}
    field = list(trials)
    if any((sampling, count) not in known for sampling in field for count in rounds):
        bench.warm_up()
    for count in rounds:
        latest = {}
        for sampling in field:
            found = known.get((sampling, count)) or trials[sampling].measure(count)
            latest[sampling] = found
            yield found
        field = [s for s in field if not hopeless(latest[s], list(latest.values()))]


def hopeless(candidate: Candidate, others: Sequence[Candidate]) -> bool:
    """Whether another way costs no more calls and is better beyond doubt.

    Beyond doubt is three standard errors of the difference, taken as if the two were measured
    on other noise and other pictures: they share both, which makes the difference surer still.
    """
    return any(
        other.calls <= candidate.calls
        and candidate.score - other.score > 3 * math.hypot(candidate.error, other.error)
        for other in others
    )


def latest(measured: Sequence[Candidate]) -> list[Candidate]:
    """The last measurement of each way to draw."""
    return list({candidate.sampling: candidate for candidate in measured}.values())
