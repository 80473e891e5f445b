"""How often a run is scored while it trains, and from how many pictures, by a share of the time.

Twelve scores make a curve; past that, pictures make each surer.
"""

from typing import NamedTuple

from kao.config import RunConfig
from kao.config.sections import EvaluationConfig
from kao.runs.guiding import guides

MOST_CALLS = 12
"""Scores over a run whose `evaluation.every` is "auto", its end included."""

FEWEST_PICTURES, MOST_PICTURES = 64, 512
"""Of a score, where their number is "auto": with fewer its error is as large as what it measures,
and more say what the next score would say, too."""

_FORWARD = 1 / 3
"""What a network's forward pass costs, in training steps of one picture."""


class Scores(NamedTuple):
    """How often a run is scored, its end included, and from how many pictures each time."""

    calls: int
    pictures: int


def scores_within(asked: EvaluationConfig, *, budget: float, drawn: float, images: int) -> Scores:
    """As many scores as a budget pays for, and as many pictures for each.

    Twelve scores make a curve; past that, pictures make each surer.  Where the budget does not
    pay for twelve of the fewest pictures, there are fewer scores, or none.

    Args:
        asked: What is not "auto" in it stays.
        budget: For all of them, in any unit.
        drawn: What one picture costs, in that unit.
        images: That the whole run will see.
    """
    calls = MOST_CALLS if asked.every == "auto" else _calls(images, asked.every)
    if asked.pictures != "auto":
        pictures = asked.pictures
    elif drawn <= 0 or calls == 0:
        pictures = MOST_PICTURES
    else:
        share = min(float(MOST_PICTURES), budget / (calls * drawn))
        pictures = max(FEWEST_PICTURES, int(share))
    if asked.every == "auto" and drawn > 0:
        calls = min(MOST_CALLS, int(budget / (pictures * drawn)))
    return Scores(calls, pictures)


def scores_in_images(config: RunConfig, images: int) -> Scores:
    """Those of a run of so many images, by the work of its network alone: alike on all machines.

    Args:
        config: Of the run.
        images: That the whole run will see.
    """
    asked = config.evaluation
    predictions = 2 if guides(config) else 1
    drawn = _FORWARD * asked.steps * predictions
    return scores_within(asked, budget=asked.share * images, drawn=drawn, images=images)


def _calls(images: int, every: int) -> int:
    return max(1, round(images / every)) if every else 0
