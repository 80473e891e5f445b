"""Between the options of a diffusers scheduler that tell its levels, and a schedule."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from kao.diffusion import Cosine, DiscreteSchedule, Linear, ScaledLinear, ScheduleConfig
from kao.errors import ConfigError
from kao.exchange.betas import betas_of, named, without_signal
from kao.exchange.options import NUMBER, NUMBERS, WHOLE, WORD, YES, Option, maybe

FILE = "scheduler_config.json"
"""The name of the file that has these options."""

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
"""What diffusers calls a formula of betas, as beta_schedule."""

OPTIONS: Mapping[str, Option] = {
    "num_train_timesteps": Option(1000, WHOLE),
    "beta_schedule": Option("linear", WORD),
    "beta_start": Option(1e-4, NUMBER),
    "beta_end": Option(0.02, NUMBER),
    "trained_betas": Option(None, maybe(NUMBERS)),
    "rescale_betas_zero_snr": Option(False, YES),
}
"""Options of levels, with the values that diffusers gives most kinds of schedulers."""


def read_chain(told: Mapping[str, Any]) -> ScheduleConfig:
    """The levels of a scheduler.

    Args:
        told: All of `OPTIONS`.

    Raises:
        ConfigError: They are not expressed here.
    """
    formula, steps = told["beta_schedule"], told["num_train_timesteps"]
    first, last = told["beta_start"], told["beta_end"]
    rescaled = told["rescale_betas_zero_snr"]
    if told["trained_betas"] is not None:
        betas = torch.tensor(told["trained_betas"], dtype=torch.float64)
    elif formula == "linear":
        return Linear(steps, first, last, zero_terminal_snr=rescaled)
    elif formula == "scaled_linear":
        return ScaledLinear(steps, first, last, zero_terminal_snr=rescaled)
    elif formula == "squaredcos_cap_v2":
        return Cosine(steps, zero_terminal_snr=rescaled)
    elif formula == "sigmoid":  # a sigmoid of betas, where our schedule of that name is one of abar
        shares = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid()
        betas = shares * (last - first) + first
    else:
        raise refused("beta_schedule", formula, BETA_SCHEDULES)
    return named(without_signal(betas) if rescaled else betas)


def write_chain(schedule: ScheduleConfig) -> dict[str, Any]:
    """The options of these levels; a chain that diffusers has no formula for is written out.

    Args:
        schedule: A chain.

    Raises:
        ConfigError: They are no chain.
    """
    match schedule:
        case Linear(shift=0.0) | ScaledLinear(shift=0.0):
            return {
                "num_train_timesteps": schedule.steps,
                "beta_schedule": "linear" if isinstance(schedule, Linear) else "scaled_linear",
                "beta_start": schedule.beta_first,
                "beta_end": schedule.beta_last,
                "trained_betas": None,
                "rescale_betas_zero_snr": schedule.zero_terminal_snr,
            }
        case Cosine(offset=0.008, beta_limit=0.999, shift=0.0):
            return {
                "num_train_timesteps": schedule.steps,
                "beta_schedule": "squaredcos_cap_v2",
                "trained_betas": None,
                "rescale_betas_zero_snr": schedule.zero_terminal_snr,
            }
    chain = schedule.build()
    if not isinstance(chain, DiscreteSchedule):
        raise ConfigError(
            "diffusers' pipelines draw with chains, and this [schedule] is none: it is in "
            "continuous time."
        )
    betas = betas_of(chain)
    return {
        "num_train_timesteps": len(betas),
        "beta_schedule": "linear",  # without a meaning where betas are listed
        "trained_betas": betas.tolist(),
        "rescale_betas_zero_snr": False,
    }


def refused(key: str, value: Any, known: Iterable[Any]) -> ConfigError:
    """An error for an option that cannot be expressed here.

    Args:
        key: Of the option.
        value: As it is told.
        known: Values that can be expressed.
    """
    expected = ", ".join(str(each) for each in known)
    return ConfigError(
        f"{key} = {value!r} in {FILE} cannot be expressed here; expected {expected}."
    )
