"""Scores while training: how good the pictures are, which weights drew the best, and when to stop.

Each score draws from the same noise in few steps and is held against the same real pictures, so
that a curve of a dozen scores is smooth.  Nothing of the run is drawn from or changed.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kao.config import RunConfig
from kao.data.keeping import Pictures
from kao.diffusion import SAMPLERS
from kao.errors import CheckpointError
from kao.evaluation.verdict import Verdict, judge
from kao.metrics import Features, Score, open_space
from kao.metrics.scores import Z95
from kao.processes import TURNS, Processes
from kao.runs.averages import BEST_SCORE, Facts, SavedAverage, facts_of, place
from kao.runs.hooks import at_once
from kao.runs.run import draw, load_worse
from kao.runs.saving import Notices
from kao.runs.timetable import anneals
from kao.runs.weights import lent
from kao.runs.yardstick import Measured, Yardstick
from kao.shards import whole
from kao.tracking import Tracker, read_events
from kao.training import Trainer
from kao.training.ema import average_width

SAMPLER = "dpm++2m"
"""Draws the pictures of a score: one network call a step, and good in ten."""

_SEED = 0x5C0_4E
"""Of the noise; no run's own, so that runs compare."""

PATIENCE = 3
"""Verdicts in a row after which a run with `evaluation.stop = "auto"` is stopped."""


def quickly(config: RunConfig) -> RunConfig:
    """The configuration with the way to draw the pictures of a score; guidance and grid stay."""
    sampling = replace(config.sampling, sampler=SAMPLERS[SAMPLER](), steps=config.evaluation.steps)
    return replace(config, sampling=sampling)


def opened_space(config: RunConfig, processes: Processes) -> Features:
    """The feature space of the scores, on the CPU.

    One process of each machine after the other asks for it: weights that are not there are
    downloaded by the first.

    Args:
        config: Says which.
        processes: Which of several this is.

    Raises:
        ConfigError: There is no such space, or its weights are missing or not what they should be.
        MissingExtraError: A package for it is not installed.
    """
    for turn in range(TURNS):
        if turn == processes.turn:
            space = open_space(config.evaluation.features)
        processes.wait()
    return space


class Scoring:
    """Draws, scores, judges; keeps the weights with the best score.

    To be called after held-out losses, which the verdict goes by, too.  With several processes
    each calls it and draws its share, and the first one writes.

    Args:
        run: The run directory.
        config: Resolved.
        pictures: The whole set.
        space: The feature space.
        tracker: Told of each score and verdict.
        news: Told of each score, for people.
        notices: Told of what the user should know: that a run learns by heart, or is stopped.
        resumed: Whether the run was taken up, and its best weights so far with it.
    """

    def __init__(
        self,
        run: Path,
        config: RunConfig,
        pictures: Pictures,
        space: Features,
        tracker: Tracker,
        *,
        news: Notices,
        notices: Notices,
        resumed: bool,
    ):
        self.run, self.tracker, self.news, self.notices = run, tracker, news, notices
        self.every = int(config.evaluation.every)
        self.stopped = False
        self._config, self._pictures, self._space = config, pictures, space
        self._drawn = int(config.evaluation.pictures)
        self._yardstick: Yardstick | None = None
        self._best = _known_best(run) if resumed else None

    def __call__(self, trainer: Trainer) -> None:
        """Score, judge, tell; nothing where the run is stopped before or meanwhile.

        Raises:
            OutputError: The best weights cannot be written; the run may go on without them.
        """
        if trainer.leaving():
            return
        started = time.perf_counter()
        yardstick = self._against(trainer)
        seen = self._seen(trainer, yardstick)
        if seen is None:
            return
        # By one process: others might disagree in the last digit, and then on what to do.
        told = self._told(trainer, yardstick(*seen), started) if trainer.processes.main else None
        outcome = trainer.processes.broadcast(told)
        self._act(trainer, outcome)
        if outcome.best:
            self._keep(trainer, outcome.score)

    def _against(self, trainer: Trainer) -> Yardstick:
        """The real pictures, looked at when they are first needed."""
        if self._yardstick is None:
            self._yardstick = Yardstick(
                self._pictures,
                self._space.to(trainer.device),
                held_out=int(self._config.data.held_out),
                drawn=self._drawn,
                device=trainer.device,
            )
        return self._yardstick

    def _seen(self, trainer: Trainer, yardstick: Yardstick) -> tuple[Tensor, Tensor] | None:
        """Drawn pictures and their features, (n, D); None where the run is to stop."""
        config = quickly(self._config).with_learned_grid(trainer.loss.times.knots())
        worse = load_worse(config, device=trainer.device)
        batches = []
        average = next(iter(trainer.ema.values())).average
        with lent(trainer.denoiser, average), trainer.gradients.autocast():
            for batch in draw(
                trainer.denoiser,
                config,
                indices=range(self._drawn),
                seed=_SEED,
                batch=at_once(trainer.device),
                worse=worse,
                processes=trainer.processes,
            ):
                batches.append(batch)
                if trainer.leaving():
                    return None
        drawn = torch.cat(batches)
        own = yardstick.features(drawn[trainer.processes.rows(len(drawn))])
        return drawn, trainer.processes.gather(own)

    def _told(self, trainer: Trainer, measured: Measured, started: float) -> "_Outcome":
        """Tell the tracker and the user of a score, and judge the run by it."""
        images, score = trainer.progress.images, measured.score
        best = self._beats(score)
        values = {
            "measure": self._measure,
            "pictures": score.samples,
            "score": figures(score),
            "drift": {drift.name.split()[0]: figures(drift) for drift in measured.drift},
            "minutes": round(trainer.progress.seconds / 60, 4),
            "best": best,
            "seconds": round(time.perf_counter() - started, 3),
        }
        if measured.copies is not None:
            values["copies"] = figures(measured.copies)
        if self._yardstick is not None and self._yardstick.floor is not None:
            values["floor"] = figures(self._yardstick.floor)
        self.tracker.event("evaluation", images, values)
        events = read_events(self.run)
        verdict = judge(events, finished=trainer.done >= 1)
        self.tracker.event("verdict", images, verdict.to_event())
        self.news.add(
            f"Score {score.value:.4f} \N{PLUS-MINUS SIGN} {Z95 * score.own:.4f} at {images:,} "
            f"images. {verdict}"
        )
        row = [event.get("state", "") for event in events if event["event"] == "verdict"]
        return _Outcome(score, best, verdict, (*row[1 - PATIENCE :], verdict.state))

    def _act(self, trainer: Trainer, outcome: "_Outcome") -> None:
        """Warn of what goes wrong, once; stop a run that asked for it."""
        state, row = outcome.verdict.state, outcome.row
        if state == "overfitting" and row[-2:-1] != (state,):
            self.notices.add(outcome.verdict.sentence)
        if self._config.evaluation.stop == "auto" and trainer.done < 1 and self._hopeless(row):
            self.stopped = True
            self.notices.add(
                f"Stopped, since {PATIENCE} verdicts in a row were {_listed(row)} "
                f'(evaluation.stop = "auto"): kao sample --weights {BEST_SCORE} draws with the '
                f"best weights, and evaluation.stop=never goes on."
            )
            trainer.stop()

    def _hopeless(self, row: Sequence[str]) -> bool:
        """Whether nothing is to be hoped of a run after these verdicts.

        One whose learning rate falls at its end is not stopped for being flat: the fall is still
        to come, and brings more than what came before.
        """
        enough = {"overfitting"} if anneals(self._config) else {"overfitting", "flat"}
        return len(row) == PATIENCE and set(row) <= enough

    @property
    def _measure(self) -> str:
        assert self._yardstick is not None
        steps = self._config.evaluation.steps
        return f"{self._yardstick.measure}, {SAMPLER} in {steps} steps"

    def _beats(self, score: Score) -> bool:
        """Whether no earlier score by this measure is better."""
        best = self._best
        if best is None or best.score is None or best.measure != self._measure:
            return True
        return score.value <= best.score

    def _keep(self, trainer: Trainer, score: Score) -> None:
        """Write the averaged weights of this moment as the best."""
        name, average = next(iter(trainer.ema.items()))
        main = trainer.processes.main
        tensors = whole(average.average, kept=main)
        if not main:
            return
        facts = Facts(
            name,
            images=trainer.progress.images,
            width=average_width(name),
            score=score.value,
            error=score.own,
            measure=self._measure,
        )
        SavedAverage(facts, tensors).save(self.run, BEST_SCORE)
        self._best = facts


class _Outcome(NamedTuple):
    """What came of a score, as all processes know it.

    Attributes:
        score: It.
        best: Whether none before was better.
        verdict: On the run.
        row: States of the last verdicts, this one included.
    """

    score: Score
    best: bool
    verdict: Verdict
    row: tuple[str, ...]


def figures(score: Score) -> dict[str, float]:
    """A score for a tracker."""
    return {
        "value": score.value,
        "error": score.error,
        "own_error": score.own,
        "low": score.low,
        "high": score.high,
    }


def _known_best(run: Path) -> Facts | None:
    """What is known of the best weights so far; None where none are kept, or they are damaged."""
    if not place(run, BEST_SCORE).is_file():
        return None
    try:
        return facts_of(run, BEST_SCORE)
    except CheckpointError:
        return None


def _listed(states: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(states))
