"""Between diffusers' scheduler_config.json and a schedule, a target and a way to draw."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kao.config import SamplingConfig
from kao.diffusion import (
    Ancestral,
    Clip,
    Dynamic,
    ScheduleConfig,
    Target,
    Threshold,
    targets,
)
from kao.errors import ConfigError
from kao.exchange import chains, drawing
from kao.exchange.chains import FILE, refused
from kao.exchange.drawing import DDPM, KINDS, OF_KIND, SPACINGS, Variance
from kao.exchange.options import (
    ANY,
    POSITIVE,
    SHARE,
    WHOLE,
    WORD,
    YES,
    Option,
    maybe,
    read_options,
)

TARGET_NAMES: Mapping[str, Target] = {
    "epsilon": targets.eps,
    "sample": targets.x0,
    "v_prediction": targets.v,
}
"""What diffusers calls a target, as prediction_type."""

VARIANCES: Mapping[str, Variance] = {
    "fixed_small": "beta_tilde",
    "fixed_small_log": "beta_tilde",
    "fixed_large": "beta",
    "fixed_large_log": "beta",
    "learned_range": "learned",
}
"""What diffusers calls the variance of a reverse step, as variance_type."""

_PLAIN = {
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "timestep_type": "discrete",
    "interpolation_type": "linear",
}
"""Options that would leave the chain, with the values that do not."""

_OPTIONS: Mapping[str, Option] = {
    **chains.OPTIONS,
    "prediction_type": Option("epsilon", WORD),
    "variance_type": Option(None, maybe(WORD)),
    "clip_sample": Option(False, maybe(YES)),
    "clip_sample_range": Option(1.0, POSITIVE),
    "thresholding": Option(False, YES),
    "dynamic_thresholding_ratio": Option(0.995, SHARE),
    "sample_max_value": Option(1.0, POSITIVE),
    **{key: Option(plain, ANY) for key, plain in _PLAIN.items()},
    **drawing.OPTIONS,
}
"""All options that are known, with the values that diffusers gives most kinds of schedulers."""

_OLD: Mapping[str, Option] = {
    "timesteps": Option(None, maybe(WHOLE)),
    "clip_predicted_image": Option(None, maybe(YES)),
    "predict_epsilon": Option(None, maybe(YES)),
    "tensor_format": Option(None, maybe(WORD)),
}
"""Options of diffusers before 0.11, which have other names or none now."""

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
    table = _renamed(table)
    kind = table.get("_class_name", DDPM)
    if kind not in KINDS:
        raise refused("_class_name", kind, KINDS)
    options = {**OF_KIND.get(kind, {}), **table}
    read_options(options, _OPTIONS, file=FILE)
    read = {key: value for key, value in options.items() if drawing.reads(kind, key)}
    told = read_options(read, _OPTIONS, file=FILE)
    for key, plain in _PLAIN.items():
        if told[key] != plain:
            raise refused(key, told[key], [plain])
    prediction = told["prediction_type"]
    if prediction not in TARGET_NAMES:
        raise refused("prediction_type", prediction, TARGET_NAMES)
    variance = told["variance_type"] or "fixed_small"
    if variance not in VARIANCES:
        raise refused("variance_type", variance, VARIANCES)
    if told["timestep_spacing"] not in SPACINGS:
        raise refused("timestep_spacing", told["timestep_spacing"], SPACINGS)
    schedule, learned = chains.read_chain(told), VARIANCES[variance] == "learned"
    levels = schedule.build()
    sampler, differs = drawing.sampler_of(kind, told, variance=VARIANCES[variance])
    grid, shifted = drawing.grid_of(kind, told, levels)
    threshold, bounded = _read_threshold(told)
    walks = kind == DDPM
    steps = drawing.steps_of(sampler, int(levels.t_max), walks=walks)
    differs |= shifted | bounded | drawing.left_out(told)
    differs |= drawing.started(kind, told, levels(grid(levels, min(steps, 10))[0]))
    return Told(
        schedule=schedule,
        target=TARGET_NAMES[prediction],
        learned_variance=learned if walks else learned or None,
        sampling=SamplingConfig(
            sampler=sampler,
            grid=grid,
            steps=steps,
            threshold=threshold,
        ),
        notes=(*_differences(differs), *_passed_over(kind, table)),
    )


def _renamed(table: Mapping[str, Any]) -> dict[str, Any]:
    """The options by the names that they have now; what has both names keeps the new one's value.

    Raises:
        ConfigError: An old one is of another kind.
    """
    old = read_options(table, _OLD, file=FILE)
    predicted = {None: None, True: "epsilon", False: "sample"}[old["predict_epsilon"]]
    new = {
        "num_train_timesteps": old["timesteps"],
        "clip_sample": old["clip_predicted_image"],
        "prediction_type": predicted,
    }
    kept = {key: value for key, value in table.items() if key not in _OLD}
    return {**{key: value for key, value in new.items() if value is not None}, **kept}


def _differences(found: drawing.Differences) -> list[str]:
    """A note on how pictures from the same noise differ from those of diffusers, where they do."""
    if not found:
        return []
    each = "; ".join(f"{why}, by up to {by:g}" for why, by in found.items())
    return [
        f"From the same noise pictures differ from those of diffusers: {each} (of pixels in "
        f"[-1, 1], in 10 steps with an exact denoiser of Gaussian data)."
    ]


def _passed_over(kind: str, table: Mapping[str, Any]) -> list[str]:
    """A note on options that the scheduler does not know, where they say anything."""
    strange = [
        f"{key} = {value!r}"
        for key, value in table.items()
        if not key.startswith("_")
        and value is not None
        and not (key in _OPTIONS and (drawing.reads(kind, key) or value == _OPTIONS[key].default))
    ]
    if not strange:
        return []
    return [f"{', '.join(strange)} in its {FILE} is no option of a {kind} and was left out."]


def _read_threshold(told: Mapping[str, Any]) -> tuple[Threshold | None, drawing.Differences]:
    """What is done to predicted pictures beyond what pixels can show, and in what it differs.

    Args:
        told: All options.
    """
    if not told["thresholding"]:
        return (Clip(told["clip_sample_range"]) if told["clip_sample"] else None), {}
    most = told["sample_max_value"]
    if most <= 1:  # then every picture is clipped, whatever its contrast
        return Clip(), {}
    # Ours has no bound of contrast past which it clips.
    bounded = {f"sample_max_value = {most:g}": 0.3} if most < _FAR else {}
    return Dynamic(told["dynamic_thresholding_ratio"]), bounded


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
    spacings = {grid: name for name, grid in SPACINGS.items()}
    variances: dict[Variance, str] = {"beta_tilde": "fixed_small", "beta": "fixed_large"}
    sampler = sampling.sampler
    variance = sampler.variance if isinstance(sampler, Ancestral) else "beta_tilde"
    # diffusers takes the outputs apart where the variance is learned, and only there.
    told = "learned_range" if learned_variance else variances.get(variance, "fixed_small")
    return {
        "_class_name": "DDPMScheduler",
        **chains.write_chain(schedule),
        "prediction_type": kinds[target],
        "variance_type": told,
        "timestep_spacing": spacings.get(sampling.grid, "trailing"),
        "steps_offset": 0,
        **_written_threshold(sampling.threshold),
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
