"""Training: the loop, the averages, the optimiser, the length of a run."""

from kao.training.ema import EMA, warmed_decay
from kao.training.length import Length, Progress
from kao.training.meter import Meter, band_names
from kao.training.optimizer import RATES, CosineRate, OptimizerConfig, RateSchedule, Trapezoid
from kao.training.trainer import Hook, Step, Trainer

__all__ = [
    "EMA",
    "RATES",
    "CosineRate",
    "Hook",
    "Length",
    "Meter",
    "OptimizerConfig",
    "Progress",
    "RateSchedule",
    "Step",
    "Trainer",
    "Trapezoid",
    "band_names",
    "warmed_decay",
]
