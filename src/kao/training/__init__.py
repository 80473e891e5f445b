"""Training: the loop, the gradient, the averages, the optimiser, the length of a run."""

from kao.training.classes import Classes
from kao.training.curriculum import CURRICULA, Curriculum, Glance, Patches, Progressive
from kao.training.ema import (
    EMA,
    average_name,
    average_width,
    check_width,
    fixed_decay,
    power_decay,
    warmed_decay,
)
from kao.training.gradients import Figures, Gradients
from kao.training.groups import scale_rate
from kao.training.guard import Guard, Skipped
from kao.training.length import Length, Progress
from kao.training.meter import Meter, band_names
from kao.training.objective import Objective
from kao.training.optimizer import OptimizerConfig
from kao.training.optimizers import OPTIMIZERS, Average
from kao.training.parallel import check_spread, spread
from kao.training.posthoc import PAIR
from kao.training.rates import (
    RATES,
    Constant,
    CosineRate,
    InverseSqrt,
    RateSchedule,
    Trapezoid,
)
from kao.training.selftest import PrecisionTest, compare_precision
from kao.training.trainer import Hook, Step, Trainer

__all__ = [
    "CURRICULA",
    "EMA",
    "OPTIMIZERS",
    "PAIR",
    "RATES",
    "Average",
    "Classes",
    "Constant",
    "CosineRate",
    "Curriculum",
    "Figures",
    "Glance",
    "Gradients",
    "Guard",
    "Hook",
    "InverseSqrt",
    "Length",
    "Meter",
    "Objective",
    "OptimizerConfig",
    "Patches",
    "PrecisionTest",
    "Progress",
    "Progressive",
    "RateSchedule",
    "Skipped",
    "Step",
    "Trainer",
    "Trapezoid",
    "average_name",
    "average_width",
    "band_names",
    "check_spread",
    "check_width",
    "compare_precision",
    "fixed_decay",
    "power_decay",
    "scale_rate",
    "spread",
    "warmed_decay",
]
