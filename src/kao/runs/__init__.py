"""Runs: their directory, how they start and go on, what they draw."""

from kao.runs.ask import Ask
from kao.runs.importing import import_run
from kao.runs.library import finetune, sample, train
from kao.runs.planning import Plan, configure, plan
from kao.runs.run import Run, draw, guided, with_sampling
from kao.runs.start import Session, ending, finish, open_session

__all__ = [
    "Ask",
    "Plan",
    "Run",
    "Session",
    "configure",
    "draw",
    "ending",
    "finetune",
    "finish",
    "guided",
    "import_run",
    "open_session",
    "plan",
    "sample",
    "train",
    "with_sampling",
]
