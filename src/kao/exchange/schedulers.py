"""Between diffusers' scheduler_config.json and a schedule, a target and a way to draw."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from kao.config import SamplingConfig
from kao.diffusion import (
    DDIM,
    PNDM,
    Ancestral,
    Clip,
    Cosine,
    DiscreteSchedule,
    DPMSolver2M,
    DPMSolver2S,
    Dynamic,
    Euler,
    EulerAncestral,
    Grid,
    Heun,
    Linear,
    Sampler,
    ScaledLinear,
    ScheduleConfig,
    Target,
    Threshold,
    UniPC,
    grids,
    targets,
)
from kao.errors import ConfigError
from kao.exchange.betas import betas_of, named, without_signal

TARGET_NAMES: Mapping[str, Target] = {
    "epsilon": targets.eps,
    "sample": targets.x0,
    "v_prediction": targets.v,
}
"""What diffusers calls a target, as prediction_type."""

Variance = Literal["beta", "beta_tilde", "learned"]

VARIANCES: Mapping[str, Variance] = {
    "fixed_small": "beta_tilde",
    "fixed_small_log": "beta_tilde",
    "fixed_large": "beta",
    "fixed_large_log": "beta",
    "learned_range": "learned",
}
"""What diffusers calls the variance of a reverse step, as variance_type."""

_SPACINGS: Mapping[str, Grid] = {
    "leading": grids.leading,
    "linspace": grids.linspace,
    "trailing": grids.trailing,
}

_PLAIN = {
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "timestep_type": "discrete",
    "interpolation_type": "linear",
}
"""Options that would leave the chain, with the values that do not."""

_STEPS = 50
"""In which diffusers' pipelines draw, unless they walk the whole chain."""

_FAR = 1e6
"""More contrast than any predicted picture has: no upper bound."""


@dataclass(frozen=True)
class Told:
    """What a scheduler_config.json tells.

    Attributes:
        schedule: The levels.
        target: What the network says of them.
        learned_variance: Whether it says the variance of a step, too; None: not told, as with
            schedulers that have no use for it.
        sampling: How its makers draw.
        notes: Sentences on what is told and has no place here.
    """

    schedule: ScheduleConfig
    target: Target
    learned_variance: bool | None
    sampling: SamplingConfig
    notes: tuple[str, ...] = ()


def read_scheduler(table: Mapping[str, Any]) -> Told:
    """What a scheduler's configuration says of levels, target and drawing.

    Options that are left out have the values that diffusers gives them.

    Args:
        table: Of scheduler_config.json.

    Raises:
        ConfigError: It is of a kind, or has an option, that cannot be expressed here; the message
            names the key.
    """
    for key, plain in _PLAIN.items():
        if (value := table.get(key, plain)) != plain:
            raise _refused(key, value, [plain])
    prediction = table.get("prediction_type", "epsilon")
    if prediction not in TARGET_NAMES:
        raise _refused("prediction_type", prediction, TARGET_NAMES)
    variance = table.get("variance_type") or "fixed_small"
    if variance not in VARIANCES:
        raise _refused("variance_type", variance, VARIANCES)
    samplers: Mapping[str, Sampler] = {
        "DDPMScheduler": Ancestral(variance=VARIANCES[variance]),
        "DDIMScheduler": DDIM(),
        "PNDMScheduler": PNDM(),
        "DPMSolverMultistepScheduler": DPMSolver2M(),
        "DPMSolverSinglestepScheduler": DPMSolver2S(),
        "UniPCMultistepScheduler": UniPC(),
        "EulerDiscreteScheduler": Euler(),
        "EulerAncestralDiscreteScheduler": EulerAncestral(),
        "HeunDiscreteScheduler": Heun(),
    }
    kind = table.get("_class_name", "DDPMScheduler")
    if kind not in samplers:
        raise _refused("_class_name", kind, samplers)
    walks, early = kind == "DDPMScheduler", kind in ("DDPMScheduler", "DDIMScheduler")
    spacing = table.get(
        "timestep_spacing", "leading" if early or kind == "PNDMScheduler" else "linspace"
    )
    if spacing not in _SPACINGS:
        raise _refused("timestep_spacing", spacing, _SPACINGS)
    schedule, learned = _read_schedule(table), VARIANCES[variance] == "learned"
    steps = int(schedule.build().t_max)
    threshold, notes = _read_threshold(table, clips=early)
    return Told(
        schedule=schedule,
        target=TARGET_NAMES[prediction],
        learned_variance=learned if walks else learned or None,
        sampling=SamplingConfig(
            sampler=samplers[kind],
            grid=_SPACINGS[spacing],
            steps=steps if walks else min(_STEPS, steps),
            threshold=threshold,
        ),
        notes=notes,
    )


def _read_schedule(table: Mapping[str, Any]) -> ScheduleConfig:
    """The levels of a scheduler.

    Raises:
        ConfigError: They are not expressed here.
    """
    kind, steps = table.get("beta_schedule", "linear"), table.get("num_train_timesteps", 1000)
    first, last = table.get("beta_start", 1e-4), table.get("beta_end", 0.02)
    rescaled = bool(table.get("rescale_betas_zero_snr", False))
    if table.get("trained_betas") is not None:
        betas = torch.tensor(table["trained_betas"], dtype=torch.float64)
    elif kind == "linear":
        return Linear(steps, first, last, zero_terminal_snr=rescaled)
    elif kind == "scaled_linear":
        return ScaledLinear(steps, first, last, zero_terminal_snr=rescaled)
    elif kind == "squaredcos_cap_v2":
        return Cosine(steps, zero_terminal_snr=rescaled)
    elif kind == "sigmoid":  # a sigmoid of betas, where our schedule of that name is one of abar
        shares = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid()
        betas = shares * (last - first) + first
    else:
        raise _refused(
            "beta_schedule", kind, ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
        )
    return named(without_signal(betas) if rescaled else betas)


def _read_threshold(
    table: Mapping[str, Any], *, clips: bool
) -> tuple[Threshold | None, tuple[str, ...]]:
    """What is done to predicted pictures beyond what pixels can show, and a note where it differs.

    Args:
        table: Of the scheduler.
        clips: Whether a scheduler of its kind clips where it does not say otherwise.
    """
    if not table.get("thresholding", False):
        clips = table.get("clip_sample", clips)
        return (Clip(table.get("clip_sample_range", 1.0)) if clips else None), ()
    most = table.get("sample_max_value", 1.0)
    if most <= 1:  # then every picture is clipped, whatever its contrast
        return Clip(), ()
    dynamic = Dynamic(table.get("dynamic_thresholding_ratio", 0.995))
    if most >= _FAR:
        return dynamic, ()
    return dynamic, (
        f"Its thresholding lets contrast past {most:g} times that of a picture be clipped "
        f"(sample_max_value), and ours has no such bound.",
    )


def write_scheduler(
    schedule: ScheduleConfig,
    target: Target,
    *,
    sampling: SamplingConfig,
    learned_variance: bool,
) -> dict[str, Any]:
    """The scheduler_config.json of a DDPMScheduler with these levels.

    A chain that diffusers has no formula for is written out.

    Args:
        schedule: A chain.
        target: "eps", "x0" or "v".
        sampling: Its grid, threshold and variance are told.
        learned_variance: Whether the network says the variance of a step.

    Raises:
        ConfigError: diffusers has no such levels, target or threshold; the message says which it
            has.
    """
    kinds = {ours: theirs for theirs, ours in TARGET_NAMES.items()}
    if target not in kinds:
        raise ConfigError(
            f"[target] {target!r} is none that diffusers' schedulers know: they know eps, x0 and v."
        )
    spacings = {grid: name for name, grid in _SPACINGS.items()}
    variances: dict[Variance, str] = {"beta_tilde": "fixed_small", "beta": "fixed_large"}
    sampler = sampling.sampler
    variance = sampler.variance if isinstance(sampler, Ancestral) else "beta_tilde"
    # diffusers takes the outputs apart where the variance is learned, and only there.
    told = "learned_range" if learned_variance else variances.get(variance, "fixed_small")
    return {
        "_class_name": "DDPMScheduler",
        **_written_schedule(schedule),
        "prediction_type": kinds[target],
        "variance_type": told,
        "timestep_spacing": spacings.get(sampling.grid, "trailing"),
        "steps_offset": 0,
        **_written_threshold(sampling.threshold),
    }


def _written_schedule(schedule: ScheduleConfig) -> dict[str, Any]:
    """The keys of the levels.

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


def _written_threshold(threshold: Threshold | None) -> dict[str, Any]:
    """The keys of what is done to predicted pictures.

    Raises:
        ConfigError: diffusers has no such threshold.
    """
    match threshold:
        case None:
            return {"clip_sample": False, "thresholding": False}
        case Clip():
            return {
                "clip_sample": True,
                "clip_sample_range": threshold.limit,
                "thresholding": False,
            }
        case Dynamic(limit=1.0):
            return {
                "clip_sample": False,
                "thresholding": True,
                "dynamic_thresholding_ratio": threshold.quantile,
                "sample_max_value": _FAR,
            }
    raise ConfigError(
        f"sampling.threshold {threshold!r} is none that diffusers knows: it knows clip, and "
        f"dynamic with a limit of 1."
    )


def _refused(key: str, value: Any, known: Iterable[Any]) -> ConfigError:
    """An error for what cannot be expressed here."""
    expected = ", ".join(str(each) for each in known)
    return ConfigError(f"{key} = {value!r} in the scheduler's configuration; expected {expected}.")
