"""Scores while training: how good the pictures are, which weights drew the best, and when to stop.

Each score draws from the same noise in few steps and is held against the same real pictures, so
that a curve of a dozen scores is smooth.  Nothing of the run is drawn from or changed.
"""

import time
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from kao.config import RunConfig
from kao.data.keeping import Pictures
from kao.diffusion import Denoiser
from kao.errors import CheckpointError, OutputError
from kao.evaluation.by_heart import COPIED
from kao.evaluation.course import scores_told
from kao.evaluation.verdict import Verdict, judge
from kao.files import writing
from kao.metrics import Features, Score
from kao.metrics.scores import Z95
from kao.runs.averages import BEST_SCORE, Facts, SavedAverage, facts_of, place
from kao.runs.hooks import drawn_in_training
from kao.runs.run import load_worse
from kao.runs.saving import Notices
from kao.runs.score_drawing import NOISE, digest_of, in_words, quickly
from kao.runs.stopping import Grounds, grounds, since_start
from kao.runs.timetable import anneals
from kao.runs.weights import lent
from kao.runs.yardstick import Measured, Yardstick
from kao.shards import whole
from kao.tracking import Tracker, read_events
from kao.training import Trainer
from kao.training.ema import average_width


class Scoring:
    """Draws, scores, judges; keeps the weights with the best score.

    Weights that draw copies of training pictures, beyond doubt, never count as the best, in every
    run: a distance to training pictures is least for those.

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

    Attributes:
        every: Images between scores.
        stopped: Whether the verdict ended the run.
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
    ):
        self.run, self.tracker, self.news, self.notices = run, tracker, news, notices
        self.every = int(config.evaluation.every)
        self.stopped = False
        self._config, self._pictures, self._space = config, pictures, space
        self._drawn = int(config.evaluation.pictures)
        self._yardstick: Yardstick | None = None
        self._purse = _Purse(run, config.evaluation.share)
        self._explained = False

    def __call__(self, trainer: Trainer) -> None:
        """Score, judge, tell; nothing where the run is stopped before or meanwhile.

        In a run in minutes nothing, too, while scores have had their share of the time; but at the
        end of a run there is one.

        Raises:
            OutputError: The best weights cannot be written; the run may go on without them.
        """
        if trainer.leaving():
            return
        if not self._affordable(trainer):
            trainer.passed()
            return
        started = time.perf_counter()
        yardstick = self._against(trainer)
        ready = time.perf_counter()
        worse = load_worse(self._config, device=trainer.device)
        seen = self._seen(trainer, yardstick, worse)
        if seen is None:
            return
        # By one process: others might disagree in the last digit, and then on what to do.
        measured = yardstick(*seen) if trainer.processes.main else None
        measured = trainer.processes.broadcast(measured)
        facts = self._facts(trainer, measured.score, worse)
        best = trainer.processes.broadcast(self._beats(facts) and not _copies(measured))
        # Before the log says that they are the best, or a kill in between would leave it wrong.
        refused = self._kept(trainer, facts) if best else None
        told = None
        if trainer.processes.main:
            now = time.perf_counter()
            self._purse.pay(now - started, again=now - ready)
            told = self._told(trainer, measured, facts, best=best and refused is None, at=started)
        self._act(trainer, trainer.processes.broadcast(told))
        if refused is not None:
            raise refused

    def _affordable(self, trainer: Trainer) -> bool:
        """Whether a score stays within its share of the time; a run in images has no clock."""
        if trainer.length.images or trainer.done >= 1:
            return True
        main = trainer.processes.main
        enough = self._purse.allows(trainer.progress.seconds) if main else True
        if not (enough := bool(trainer.processes.broadcast(enough))) and not self._purse.empty:
            self._purse.empty = True
            self.notices.add(
                f"Scores have had their {100 * self._config.evaluation.share:g} % of the time "
                f"(evaluation.share): the one at {trainer.progress.images:,} images is left out, "
                f"and others may be."
            )
        return enough

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
            if trainer.processes.main:
                self._yardstick.calibrate()
        return self._yardstick

    def _seen(
        self, trainer: Trainer, yardstick: Yardstick, worse: Denoiser | None
    ) -> tuple[Tensor, Tensor] | None:
        """Drawn pictures and their features, (n, D); None where the run is to stop."""
        config = quickly(self._config).with_learned_grid(trainer.loss.times.knots())
        average = next(iter(trainer.ema.values())).average
        with lent(trainer.denoiser, average), trainer.gradients.autocast():
            drawn = drawn_in_training(trainer, config, count=self._drawn, worse=worse, seed=NOISE)
        if drawn is None:
            return None
        own = yardstick.features(drawn[trainer.processes.rows(len(drawn))])
        return drawn, trainer.processes.gather(own)

    def _facts(self, trainer: Trainer, score: Score, worse: Denoiser | None) -> Facts:
        """What is known of the averaged weights of this moment."""
        yardstick, name = self._against(trainer), next(iter(trainer.ema))
        return Facts(
            name,
            images=trainer.progress.images,
            width=average_width(name),
            score=score.value,
            error=score.own,
            measure=in_words(self._config, yardstick),
            digest=digest_of(self._config, yardstick, average=name, worse=worse),
        )

    def _told(
        self, trainer: Trainer, measured: Measured, facts: Facts, *, best: bool, at: float
    ) -> "_Outcome":
        """Tell the tracker and the user of a score, and judge the run by it."""
        images, score, yardstick = facts.images, measured.score, self._against(trainer)
        values = {
            "measure": facts.measure,
            "digest": facts.digest,
            "pictures": score.samples,
            "score": figures(score),
            "influences": [float(f"{x:.5g}") for x in measured.influences.tolist()],
            "drift": {drift.name.split()[0]: figures(drift) for drift in measured.drift},
            "minutes": round(trainer.progress.seconds / 60, 4),
            "best": best,
            "searched": yardstick.searched,
            "of": yardstick.trained,
            "seconds": round(time.perf_counter() - at, 3),
        }
        if measured.copies is not None:
            values["copies"] = figures(measured.copies)
        if yardstick.floor is not None:
            values["floor"] = figures(yardstick.floor)
        self.tracker.event("evaluation", images, values)
        events = read_events(self.run)
        verdict = judge(events, finished=trainer.done >= 1)
        self.tracker.event("verdict", images, verdict.to_event())
        self.news.add(
            f"Score {score.value:.4f} \N{PLUS-MINUS SIGN} {Z95 * score.own:.4f}"
            f"{self._explanation()} at {images:,} images. {verdict}"
        )
        before = since_start(events)
        now = {"images": images, **verdict.to_event()}
        stop = grounds(
            [*before, now],
            scores=len(scores_told(events)),
            done=trainer.done,
            anneals=anneals(self._config),
        )
        news = not before or before[-1].get("state") != verdict.state
        return _Outcome(verdict, news, stop)

    def _explanation(self) -> str:
        """What a score is, the first time."""
        if self._explained:
            return ""
        self._explained = True
        return (
            " (kernel distance to real pictures: lower is better; \N{PLUS-MINUS SIGN}: what other "
            "noise might give)"
        )

    def _act(self, trainer: Trainer, outcome: "_Outcome") -> None:
        """Warn of what goes wrong, once; stop a run that asked for it."""
        verdict = outcome.verdict
        if verdict.state in ("overfitting", "worsening") and outcome.news:
            self.notices.add(verdict.sentence)
        if (
            self._config.evaluation.stop == "auto"
            and trainer.done < 1
            and outcome.grounds is not None
        ):
            self.stopped = True
            count, states = outcome.grounds
            kept = _known_best(self.run) is not None
            draw = f"kao sample --weights {BEST_SCORE} draws with the best weights, and "
            self.notices.add(
                f"Stopped, since the last {count} verdicts were {' or '.join(states)} "
                f'(evaluation.stop = "auto"): {draw if kept else ""}evaluation.stop=never goes on.'
            )
            trainer.stop()

    def _beats(self, facts: Facts) -> bool:
        """Whether no earlier score that compares is better."""
        best = _known_best(self.run)
        if best is None or best.score is None or facts.score is None:
            return True
        if (best.measure, best.digest) != (facts.measure, facts.digest):
            return True
        return facts.score <= best.score

    def _kept(self, trainer: Trainer, facts: Facts) -> OutputError | None:
        """Write the averaged weights of this moment as the best; what kept it from that."""
        tensors = whole(trainer.ema[facts.name].average, kept=trainer.processes.main)
        if trainer.processes.main:
            try:
                SavedAverage(facts, tensors).save(self.run, BEST_SCORE)
            except OutputError as error:
                return error
        return None


class _Purse:
    """The time that scores may take of a run.

    Args:
        run: The run directory, whose log tells what they took before it was taken up.
        share: Of the time of the run.

    Attributes:
        empty: Whether the user knows that a score was left out.
    """

    def __init__(self, run: Path, share: float):
        self._run, self._share, self.empty = run, share, False
        self._spent: float | None = None
        self._last = 0.0

    def allows(self, elapsed: float) -> bool:
        """Whether another score like the last one stays within the share of these seconds."""
        return self._before() + self._last <= self._share * elapsed or self._last == 0

    def pay(self, seconds: float, *, again: float) -> None:
        """Take off what a score took, and keep in mind what another one will."""
        self._spent, self._last = self._before() + seconds, again

    def _before(self) -> float:
        if self._spent is None:
            told = [
                event.get("seconds")
                for event in read_events(self._run)
                if event["event"] == "evaluation"
            ]
            self._spent = sum(s for s in told if isinstance(s, int | float))
        return self._spent


class _Outcome(NamedTuple):
    """What came of a score, as all processes know it.

    Attributes:
        verdict: On the run.
        news: Whether the one before was another.
        grounds: To stop it; None where it goes on.
    """

    verdict: Verdict
    news: bool
    grounds: Grounds | None


def figures(score: Score) -> dict[str, float]:
    """A score for a tracker."""
    return {
        "value": score.value,
        "error": score.error,
        "own_error": score.own,
        "low": score.low,
        "high": score.high,
    }


def _copies(measured: Measured) -> bool:
    """Whether more of the pictures are copies than chance makes.

    A distance to training pictures is least for those, and such weights are not the best.
    """
    return measured.copies is not None and measured.copies.low > COPIED


def _known_best(run: Path) -> Facts | None:
    """What is known of the best weights so far; None where none are kept, or they are damaged."""
    if not place(run, BEST_SCORE).is_file():
        return None
    try:
        return facts_of(run, BEST_SCORE)
    except CheckpointError:
        return None


def drop_later_best(run: Path, *, images: int) -> None:
    """Remove the best weights of a future that a run has gone back from; nothing if they are older.

    Args:
        run: The run directory.
        images: Seen where it is taken up.

    Raises:
        OutputError: They cannot be removed.
    """
    best = _known_best(run)
    if best is not None and best.images > images:
        path = place(run, BEST_SCORE)
        with writing(path):
            path.unlink()
