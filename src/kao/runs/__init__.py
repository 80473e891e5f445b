"""Runs: their directory, how they start and go on, what they draw."""

from kao.runs.library import sample, train
from kao.runs.run import Run, draw, guided, with_sampling
from kao.runs.start import Ask, Plan, Session, configure, finish, open_session, plan

__all__ = [
    "Ask",
    "Plan",
    "Run",
    "Session",
    "configure",
    "draw",
    "finish",
    "guided",
    "open_session",
    "plan",
    "sample",
    "train",
    "with_sampling",
]
