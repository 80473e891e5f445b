"""Runs: their directory, how they start and go on, what they draw."""

from kao.runs.library import sample, train
from kao.runs.run import Run, draw, with_sampling
from kao.runs.sizing import with_precision
from kao.runs.start import Ask, Session, configure, finish, open_session

__all__ = [
    "Ask",
    "Run",
    "Session",
    "configure",
    "draw",
    "finish",
    "open_session",
    "sample",
    "train",
    "with_precision",
    "with_sampling",
]
