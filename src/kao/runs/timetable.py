"""What a run will do when: how often it logs, measures, saves and draws, and what that costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from kao.config import RunConfig, dump, leaves
from kao.runs.held_out import LEAST_INTERVAL
from kao.runs.score_budget import MOST_CALLS, scores_in_images, scores_within
from kao.training import Length

COUNTS = {
    "log": 400,
    "samples": 8,
    "checkpoints": 10,
    "held_out": 40,
    "snapshots": 24,
    "evaluation": MOST_CALLS,
}
"""How often each hook is called over a run whose intervals are "auto", its end included."""

INTERVALS = (
    "hooks.log",
    "hooks.samples",
    "hooks.checkpoints",
    "hooks.held_out",
    "ema.snapshots",
    "evaluation.every",
    "evaluation.pictures",
)
"""Keys that follow from the length of a run: the images between two calls of each hook, and how
many pictures are drawn for a score."""

_SHARES = {"samples": 0.025, "checkpoints": 0.005, "snapshots": 0.005}
"""Largest shares of a run in minutes that the calls of a hook may take; the last call of each,
at the end, is made in any case.  Held-out losses choose their pairs so as to stay cheap."""

_RARE = 100
"""Fewest steps between calls that take long, so that a very short run still mostly trains."""

_WORDS = {
    "samples": ("sample grid", "sample grids"),
    "held_out": ("held-out loss", "held-out losses"),
    "checkpoints": ("checkpoint", "checkpoints"),
    "snapshots": ("snapshot", "snapshots"),
    "evaluation": ("score", "scores"),
}
_MUCH = 0.1
"""Share of the time past which hooks are worth a word of advice."""


@dataclass(frozen=True)
class Costs:
    """What a run's parts take on this machine, in seconds.

    Attributes:
        image: Training on one image.
        hooks: One call of each hook, by the names of `COUNTS`; without a name: nothing to speak of.
        drawn: Drawing one picture of a score.
        looked: Holding it against real pictures.
        reals: Looking at those before the first score.
    """

    image: float
    hooks: Mapping[str, float]
    drawn: float = 0.0
    looked: float = 0.0
    reals: float = 0.0

    def times(self, factor: float) -> "Costs":
        """Those of a network that takes `factor` times the operations; saving stays as it is."""
        saving = ("checkpoints", "snapshots")
        hooks = {
            name: seconds * (1 if name in saving else factor)
            for name, seconds in self.hooks.items()
        }
        return replace(self, image=self.image * factor, hooks=hooks, drawn=self.drawn * factor)

    def scoring(self, pictures: int) -> "Costs":
        """Those of a run that draws so many pictures for each score."""
        if self.scored == 0:
            return self
        return replace(self, hooks={**self.hooks, "evaluation": pictures * self.scored})

    @property
    def scored(self) -> float:
        """One picture of a score."""
        return self.drawn + self.looked


@dataclass(frozen=True)
class Timetable:
    """The plan of a run.

    Attributes:
        given: What its length is given in; the other of minutes and images is expected.
        minutes: The whole run.
        images: Over all of it.
        falls: Share of the run after which the learning rate falls; 1: it does not.
        calls: About how often each hook is called, the end included.
        costs: What each call takes.
        notes: What the user should be told besides.
    """

    given: Literal["time", "images"]
    minutes: float
    images: int
    falls: float
    calls: Mapping[str, int]
    costs: Costs
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the time that hooks take, 0..1."""
        spent = sum(n * self.costs.hooks.get(name, 0.0) for name, n in self.calls.items())
        return min(1.0, spent / (60 * self.minutes))

    def lines(self) -> list[str]:
        """The plan, for the user."""
        speed = f"{1 / self.costs.image:,.0f}"
        if self.given == "time":
            expected = f"about {self.images:,} images at {speed} a second"
            falls = f"minute {self.falls * self.minutes:.3g}"
        else:
            expected = f"about {_spoken(self.minutes)} at {speed} images a second"
            falls = f"image {round(self.falls * self.images):,}"
        falls = f"; the learning rate falls from {falls} on" if self.falls < 1 else ""
        told = [
            f"{self.calls[name]} {words[self.calls[name] > 1]}{self._each(name)}"
            for name, words in _WORDS.items()
            if name in self.calls
        ]
        lines = [
            f"Planned: {expected}{falls}.",
            f"{_listed(told)} take {100 * self.share:.2g} % of the time.",
            *self.notes,
        ]
        if self.share > _MUCH:
            lines.append(
                "That is much: a longer run, fewer hooks.pictures or sampling.steps, or larger "
                "intervals in [hooks] leave more of it for training."
            )
        return lines

    def _each(self, name: str) -> str:
        seconds = self.costs.hooks.get(name, 0.0)
        if seconds < 0.1:
            return ""
        return f" ({seconds:.2g} s{' each' if self.calls[name] > 1 else ''})"


def timetable(config: RunConfig, costs: Costs) -> tuple[RunConfig, Timetable]:
    """Fill in the intervals of a run, and say what it will do when.

    Those of a run in minutes are such that hooks take a small share of its time.  Those of a run
    in images follow from its length alone, so that the run is the same on every machine.

    Args:
        config: What is not "auto" in it stays.
        costs: Measured on this machine.

    Returns:
        The configuration without "auto" intervals, and the plan that follows.
    """
    length = Length.parse(config.length, batch=config.training.batch)
    if length.images:
        images = length.images
        asked, config = config, with_intervals(config, images)
        costs = _scored(config, costs)
        calls = _calls(images, intervals(config))
        spent = sum(n * costs.hooks.get(name, 0.0) for name, n in calls.items())
        minutes = (images * costs.image + spent) / 60
        notes, falls = _unscored(asked, config), _falls(config, images)
        return config, Timetable("images", minutes, images, falls, calls, costs, notes)

    budget = 60 * length.minutes
    scores = scores_within(
        config.evaluation,
        budget=max(0.0, config.evaluation.share * budget - costs.reals),
        drawn=costs.scored,
        images=round(budget / costs.image),
    )
    costs = costs.scoring(scores.pictures)
    calls = {
        name: _affordable(most, budget * _SHARES.get(name, 1.0), costs.hooks.get(name, 0.0))
        for name, most in COUNTS.items()
    }
    calls["evaluation"] = scores.calls
    spent = sum(n * costs.hooks.get(name, 0.0) for name, n in calls.items())
    images = max(1, round((budget - min(spent, budget)) / costs.image))
    asked, config = config, with_intervals(config, images, calls=calls, pictures=scores.pictures)

    # The intervals that were asked for, and the least ones, decide how it comes out.
    every, costs = intervals(config), _scored(config, costs)
    images = _images_in(budget, costs, every)
    calls, falls = _calls(images, every), _falls(config, images)
    notes = (*_unscored(asked, config), *_dear(asked, config, costs, calls, budget))
    return config, Timetable("time", length.minutes, images, falls, calls, costs, notes)


def _scored(config: RunConfig, costs: Costs) -> Costs:
    """What the calls of a run take, now that it is known how many pictures it draws for a score."""
    pictures = config.evaluation.pictures
    return costs if pictures == "auto" else costs.scoring(pictures)


def _unscored(asked: RunConfig, config: RunConfig) -> tuple[str, ...]:
    """What the user should be told where there is no time for scores."""
    if asked.evaluation.every == 0 or config.evaluation.every != 0:
        return ()
    return (
        f"The run is too short to be scored in {100 * config.evaluation.share:g} % of its time "
        f"(evaluation.share).",
    )


def _dear(
    asked: RunConfig, config: RunConfig, costs: Costs, calls: Mapping[str, int], budget: float
) -> tuple[str, ...]:
    """What the user should be told where scores as often as they asked for pass their share."""
    each = costs.hooks.get("evaluation", 0.0)
    spent = calls.get("evaluation", 0) * each + costs.reals
    share = config.evaluation.share
    if asked.evaluation.every == "auto" or not each or spent <= share * budget:
        return ()
    return (
        f"Scores of {config.evaluation.pictures} pictures every {config.evaluation.every:,} images "
        f"would take {100 * spent / budget:.2g} % of the time, more than {100 * share:g} % "
        f"(evaluation.share): some will be left out; a larger evaluation.every keeps them apart.",
    )


def _images_in(budget: float, costs: Costs, every: Mapping[str, int]) -> int:
    """Images that a time in seconds is enough for.

    Each image brings its share, 1 / every, of a call of each hook; a hook whose interval is
    longer than the run is called once, at the end.
    """
    prices = {name: (costs.hooks.get(name, 0.0), each) for name, each in every.items() if each}
    once: set[str] = set()
    while True:
        at_the_end = sum(prices[name][0] for name in once)
        shares = sum(price / each for name, (price, each) in prices.items() if name not in once)
        images = (budget - at_the_end) / (costs.image + shares)
        # Whatever is called once leaves less time, so these can only become more.
        longer = {name for name, (_, each) in prices.items() if each > images}
        if longer <= once:
            return max(1, round(images))
        once |= longer


def _calls(images: int, every: Mapping[str, int]) -> dict[str, int]:
    """About how often each hook is called in a run of so many images, the end included."""
    return {name: max(1, round(images / each)) for name, each in every.items() if each}


def with_intervals(
    config: RunConfig,
    images: int,
    *,
    calls: Mapping[str, int] | None = None,
    pictures: int | None = None,
) -> RunConfig:
    """Replace the intervals that are "auto" by shares of a run of so many images.

    Args:
        config: Of the run.
        images: That the whole run will see.
        calls: How often each hook should be called, by the names of `COUNTS`; None: so often, and
            as many scores as a share of the network's work pays for.
        pictures: Of a score; given with `calls`.
    """
    hooks, scored = config.hooks, config.evaluation
    if calls is None:
        scores = scores_in_images(config, images)
        calls, pictures = {**COUNTS, "evaluation": scores.calls}, scores.pictures

    def every(asked: int | Literal["auto"], name: str, *, least: int = _RARE) -> int:
        """Images between two calls, with no fewer than `least` steps."""
        if asked != "auto":
            return asked
        return max(least * config.training.batch, images // calls[name])

    if scored.every == "auto":
        often = calls["evaluation"]
        # Rounded up, or the end would come right after a score.
        apart = max(_RARE * config.training.batch, -(-images // often)) if often else 0
        scored = replace(scored, every=apart)
    if scored.pictures == "auto" and pictures is not None:
        scored = replace(scored, pictures=pictures)
    return replace(
        config,
        hooks=replace(
            hooks,
            log=every(hooks.log, "log", least=1),
            samples=every(hooks.samples, "samples"),
            checkpoints=every(hooks.checkpoints, "checkpoints"),
            held_out=every(
                hooks.held_out, "held_out", least=-(-LEAST_INTERVAL // config.training.batch)
            ),
        ),
        evaluation=scored,
        ema=replace(config.ema, snapshots=every(config.ema.snapshots, "snapshots", least=1)),
    )


def open_intervals(config: RunConfig) -> list[str]:
    """The keys of the intervals that a configuration leaves to the length of the run."""
    values = leaves(dump(config))
    unscored = ("evaluation.pictures",) if config.evaluation.every == 0 else ()
    return [key for key in INTERVALS if values[key] == "auto" and key not in unscored]


def intervals(config: RunConfig) -> dict[str, int]:
    """Images between two calls of each hook, by the names of `COUNTS`; 0 where there is none.

    Args:
        config: Without "auto" in its intervals.
    """
    hooks = config.hooks
    return {
        "log": int(hooks.log),
        "samples": int(hooks.samples),
        "checkpoints": int(hooks.checkpoints),
        "held_out": 0 if config.data.held_out == 0 else int(hooks.held_out),
        "snapshots": int(config.ema.snapshots),
        "evaluation": int(config.evaluation.every),
    }


def _affordable(most: int, seconds: float, each: float) -> int:
    return most if each <= 0 else max(1, min(most, int(seconds / each)))


def anneals(config: RunConfig) -> bool:
    """Whether the learning rate falls towards the end of a run, and does so by its length."""
    return _falls(config, images=10**9) < 1


def _falls(config: RunConfig, images: int) -> float:
    """Share of the run after which the learning rate only falls; 1 if it does not."""
    shares = [config.optimizer.schedule(k * images // 100, k / 100) for k in range(101)]
    peak = max(shares)
    last = max(k for k, share in enumerate(shares) if share > peak - 1e-6)
    return last / 100


def _spoken(minutes: float) -> str:
    if minutes < 90:
        return f"{minutes:.2g} minutes"
    hours = minutes / 60
    return f"{hours:.1f} hours" if hours < 10 else f"{hours:,.0f} hours"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
