"""Climbing the ladder: each technique is measured against the best found so far, in turns.

Speeds of a machine drift, by heat and by what else runs on it, more than many techniques gain.  So
two trainers live in one process and take rounds in turns, and what counts is the ratio of
neighbouring rounds.
"""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kao.config import RunConfig
from kao.config.run import CHANNELS
from kao.data.prepared import PreparedSet
from kao.errors import KaoError
from kao.machine import (
    allow_tf32,
    give_back_freed_memory,
    memory,
    peak_flops,
    release,
    reset_peaks,
    synchronize,
)
from kao.networks.cost import flops
from kao.runs.ladder import Rung, changed, plain, rungs
from kao.training import Trainer

FIRST = Rung("plain loop", {}, "none")
"""Float32, and no technique but the fused optimiser."""

WORTH = 1.03
"""Times the speed that a technique must bring to be recommended, beside winning every round."""

KEEPS = 0.01
"""Share by which the mean loss may differ from the plain loop's and still count as kept."""

_WARM_UP = 2
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Spread(NamedTuple):
    """Median and extremes of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Measured:
    """What one rung brought.

    Attributes:
        speed: Images a second.
        gain: Speed over that of the best rung before, round by round; 1 for the first.
        memory: Bytes: weights, what the optimiser remembers and averages, counted, and what a step
            takes beside them at its peak, measured; None where the system does not tell.
        loss: Mean over the steps, which all rungs take with the same pictures, times and noise.
        drift: How much of the plain loop's loss it differs by; 0 where nothing is changed.
        share: Of the measured peak of a matrix product in this precision, 0..1: three forward
            passes' operations an image; None where a step looks at parts of pictures.
    """

    speed: Spread
    gain: Spread
    memory: int | None
    loss: float
    drift: float
    share: float | None


@dataclass(frozen=True)
class Outcome:
    """A rung, and what came of it.

    Attributes:
        rung: The technique.
        config: With which it was tried, or would have been.
        measured: None if it did not run.
        verdict: One line: "taken", or why not.
    """

    rung: Rung
    config: RunConfig
    measured: Measured | None
    verdict: str

    @property
    def taken(self) -> bool:
        """Whether the rungs above stand on it, and the recommendation has it."""
        return self.verdict == TAKEN


TAKEN = "taken"


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: Of each rung, in turns with the best before it.
        steps: A round; 0: as many as fit the seconds.
        seconds: About how long one rung takes, without building and warming up.
    """

    rounds: int = 5
    steps: int = 0
    seconds: float = 20.0

    def steps_a_round(self, seconds_a_step: float) -> int:
        """Steps of each round, half of whose time belongs to the best before."""
        return self.steps or max(1, round(self.seconds / (2 * self.rounds * seconds_a_step)))


class Contender:
    """One trainer at the start of its run, and how it does.

    Args:
        config: With the technique.
        prepared: The pictures.
        device: Where to train.

    Raises:
        KaoError: The technique does not go with the machine or the configuration.
        RuntimeError: It goes wrong, as where memory runs out.
    """

    def __init__(self, config: RunConfig, prepared: PreparedSet, device: torch.device):
        self.config, self.device = config, device
        self.losses: list[float] = []
        self._set_globals()
        config.check()
        self.trainer = config.build(prepared, device)
        self._stream = self.trainer.batches(0)
        self.round(_WARM_UP)
        kind = "allocated" if device.type == "cuda" else "cpu_rss"
        give_back_freed_memory()
        reset_peaks(device)
        before = memory(device)[kind]
        self.seconds_a_step = self.round(1)
        peak = memory(device).get(f"{kind}_peak")
        self.memory = None if peak is None else peak - before + _held(self.trainer)

    def round(self, steps: int) -> float:
        """Take some steps; returns their seconds, a step."""
        self._set_globals()
        synchronize(self.device)
        started = time.perf_counter()
        for batch in itertools.islice(self._stream, steps):
            self.losses.append(self.trainer.step(batch).loss)
        synchronize(self.device)
        return (time.perf_counter() - started) / steps

    def _set_globals(self) -> None:
        # TF32 is set for the whole process, in which two contenders take turns.
        if self.device.type == "cuda":
            allow_tf32(self.config.training.tf32)


def climb(
    config: RunConfig,
    prepared: PreparedSet,
    device: torch.device,
    *,
    effort: Effort,
    everything: bool = False,
) -> Iterator[Outcome]:
    """Try one technique after the other, each on top of those that were taken.

    A technique is taken if it was faster in every round and by `WORTH` in the middle one, and
    keeps the loss.  One that fails is told with its reason; memory that runs out is one.

    Args:
        config: Checked.  What it says of the techniques is where the climb ends, not begins.
        prepared: The pictures, of data.size.
        device: Where to train.
        effort: How long to measure.
        everything: Also what is known to lose on this device.
    """
    climber = _Climber(prepared, device, effort, _forward(config))
    start = plain(config)
    for rung in (FIRST, *rungs(config, device, everything=everything)):
        yield climber.attempt(rung, start)


class _Climber:
    """Where the climb stands."""

    def __init__(self, prepared: PreparedSet, device: torch.device, effort: Effort, forward: int):
        self._prepared, self._device = prepared, device
        self._effort, self._forward = effort, forward
        self._best: Contender | None = None
        self._steps = 0
        self._plain: list[float] = []
        self._peaks: dict[tuple[str, bool], float] = {}

    def attempt(self, rung: Rung, start: RunConfig) -> Outcome:
        """Measure one rung, and stand on it if it is better."""
        config = self._best.config if self._best is not None else start
        if rung.barred:
            return Outcome(rung, config, None, rung.barred)
        try:
            config = changed(config, rung.changes)
            contender = Contender(config, self._prepared, self._device)
            measured = self._measure(contender)
        # Whatever torch, a compiler or a driver refuses is RuntimeError, memory included.
        except (KaoError, RuntimeError) as error:
            verdict = f"does not run: {str(error).strip().partition(chr(10))[0]}"
            release(self._device)
            return Outcome(rung, config, None, verdict)
        verdict = _verdict(rung, measured, alone=self._best is None)
        if verdict == TAKEN:
            self._best = contender
        del contender
        release(self._device)
        return Outcome(rung, config, measured, verdict)

    def _measure(self, contender: Contender) -> Measured:
        batch = contender.config.training.batch
        self._steps = self._steps or self._effort.steps_a_round(contender.seconds_a_step)
        mine: list[float] = []
        gains: list[float] = []
        for turn in range(self._effort.rounds):
            pair = [contender] if self._best is None else [self._best, contender]
            # Who goes first changes, so that neither always finds the other's traces.
            seconds = {id(c): c.round(self._steps) for c in pair[:: 1 if turn % 2 else -1]}
            mine.append(batch / seconds[id(contender)])
            gains.append(seconds[id(pair[0])] / seconds[id(contender)])
        self._plain = self._plain or list(contender.losses)
        # All take as many steps before they are judged, so these are the same ones.
        steps = min(len(self._plain), len(contender.losses))
        loss, plain_loss = (
            statistics.fmean(losses[:steps]) for losses in (contender.losses, self._plain)
        )
        speed = Spread.of(mine)
        return Measured(
            speed=speed,
            gain=Spread.of(gains),
            memory=contender.memory,
            loss=loss,
            drift=loss / plain_loss - 1,
            share=self._share(contender.config, speed.median),
        )

    def _share(self, config: RunConfig, speed: float) -> float | None:
        training = config.training
        if training.curriculum is not None:
            return None
        key = (training.precision, training.tf32)
        if key not in self._peaks:
            self._peaks[key] = peak_flops(self._device, _DTYPES[training.precision])
        return 3 * self._forward * speed / self._peaks[key]


def _held(trainer: Trainer) -> int:
    """Bytes that a trainer holds between two steps."""
    module, states = trainer.gradients.objective, trainer.optimizer.state.values()
    held = [
        *module.parameters(),
        *module.buffers(),
        *(value for state in states for value in state.values() if isinstance(value, Tensor)),
        *(value for average in trainer.ema.values() for value in average.average.values()),
    ]
    return sum(tensor.nbytes for tensor in held)


def _verdict(rung: Rung, measured: Measured, *, alone: bool) -> str:
    gain = measured.gain
    if alone:
        return TAKEN
    if rung.effect == "other":
        return "shown only: it changes how the model learns"
    if gain.high < 1:
        return "slower"
    if gain.low <= 1 or gain.median < WORTH:
        return "no clear gain"
    if not abs(measured.drift) <= KEEPS:  # also refuses nan
        return f"faster, but moves the loss by {measured.drift:+.1%}"
    return TAKEN


def _forward(config: RunConfig) -> int:
    """Operations of a forward pass for one whole picture."""
    shape = (CHANNELS, config.data.size, config.data.size)
    return flops(config.build_denoiser("meta").network, shape)
