"""How a diffusers scheduler draws, as a sampler and a grid here, and what of it has no place."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from kao.diffusion import (
    DDIM,
    PNDM,
    Ancestral,
    DPMSolver2M,
    DPMSolver2MSDE,
    DPMSolver2S,
    DPMSolver3M,
    Euler,
    EulerAncestral,
    Grid,
    Heun,
    Karras,
    Level,
    LogSNR,
    NoiseSchedule,
    Sampler,
    Spaced,
    UniPC,
    grids,
)
from kao.diffusion.samplers.pndm import FAINT
from kao.exchange.options import (
    ANY,
    COUNT,
    NUMBER,
    POSITIVE,
    WHOLE,
    WORD,
    YES,
    Option,
    maybe,
)

Variance = Literal["beta", "beta_tilde", "learned"]

DDPM = "DDPMScheduler"
_DDIM, _PNDM = "DDIMScheduler", "PNDMScheduler"
_MULTI, _SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
_UNIPC, _EULER, _HEUN = "UniPCMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"
_ANCESTRAL = "EulerAncestralDiscreteScheduler"

KINDS = (DDPM, _DDIM, _PNDM, _MULTI, _SINGLE, _UNIPC, _EULER, _ANCESTRAL, _HEUN)
"""Schedulers that are read."""

OF_KIND: Mapping[str, Mapping[str, Any]] = {
    DDPM: {"timestep_spacing": "leading", "clip_sample": True},
    _DDIM: {"timestep_spacing": "leading", "clip_sample": True},
    _PNDM: {"timestep_spacing": "leading", "set_alpha_to_one": False},
    _HEUN: {"beta_start": 0.00085, "beta_end": 0.012},
}
"""What some of them take where it is left out, where the others take something else."""

OPTIONS: Mapping[str, Option] = {
    "skip_prk_steps": Option(False, YES),
    "solver_order": Option(2, WHOLE),
    "solver_type": Option(None, maybe(WORD)),
    "algorithm_type": Option("dpmsolver++", WORD),
    "use_karras_sigmas": Option(False, maybe(YES)),
    "use_exponential_sigmas": Option(False, maybe(YES)),
    "use_lu_lambdas": Option(False, maybe(YES)),
    "use_beta_sigmas": Option(False, maybe(YES)),
    "sigma_min": Option(None, maybe(POSITIVE)),
    "sigma_max": Option(None, maybe(POSITIVE)),
    "timestep_spacing": Option("linspace", WORD),
    "steps_offset": Option(0, COUNT),
    "set_alpha_to_one": Option(True, YES),
    "final_sigmas_type": Option("zero", maybe(WORD)),
    "lambda_min_clipped": Option(float("-inf"), ANY),
    "predict_x0": Option(True, YES),
    "disable_corrector": Option([], ANY),
    "solver_p": Option(None, ANY),
    "lower_order_final": Option(True, YES),
    "euler_at_final": Option(False, YES),
    "flow_shift": Option(1.0, maybe(NUMBER)),
    "time_shift_type": Option("exponential", maybe(WORD)),
}
"""Options of drawing, with the values that diffusers gives most kinds.

Some are without a meaning here: the last step is of first order in any case, and nothing flows.
"""

SPACINGS: Mapping[str, Grid] = {
    "leading": grids.leading,
    "linspace": grids.linspace,
    "trailing": grids.trailing,
}

_SOLVERS = (_MULTI, _SINGLE)
_CLEANING = (DDPM, _DDIM, *_SOLVERS, _UNIPC)
_SPREAD = (*_SOLVERS, _UNIPC, _EULER, _HEUN)
"""Those that can place levels by their noise."""

_READ_BY: Mapping[str, tuple[str, ...]] = {
    "rescale_betas_zero_snr": (DDPM, _DDIM, _MULTI, _UNIPC, _EULER, _ANCESTRAL),
    "clip_sample": (DDPM, _DDIM, _HEUN),
    "clip_sample_range": (DDPM, _DDIM, _HEUN),
    "thresholding": _CLEANING,
    "dynamic_thresholding_ratio": _CLEANING,
    "sample_max_value": _CLEANING,
    "timestep_spacing": tuple(kind for kind in KINDS if kind != _SINGLE),
    "steps_offset": tuple(kind for kind in KINDS if kind != _SINGLE),
    "set_alpha_to_one": (_DDIM, _PNDM),
    "skip_prk_steps": (_PNDM,),
    "solver_order": (*_SOLVERS, _UNIPC),
    "solver_type": (*_SOLVERS, _UNIPC),
    "lower_order_final": (*_SOLVERS, _UNIPC),
    "euler_at_final": (_MULTI,),
    "algorithm_type": _SOLVERS,
    "lambda_min_clipped": _SOLVERS,
    "final_sigmas_type": (*_SOLVERS, _UNIPC, _EULER),
    "use_karras_sigmas": _SPREAD,
    "use_exponential_sigmas": _SPREAD,
    "use_beta_sigmas": _SPREAD,
    "use_lu_lambdas": (_MULTI,),
    "sigma_min": (_UNIPC, _EULER),
    "sigma_max": (_UNIPC, _EULER),
    "predict_x0": (_UNIPC,),
    "disable_corrector": (_UNIPC,),
    "solver_p": (_UNIPC,),
    "use_flow_sigmas": (*_SOLVERS, _UNIPC),
    "flow_shift": (*_SOLVERS, _UNIPC),
    "use_dynamic_shifting": (*_SOLVERS, _UNIPC),
    "time_shift_type": (*_SOLVERS, _UNIPC),
    "shift_terminal": (_UNIPC,),
    "timestep_type": (_EULER,),
    "interpolation_type": (_EULER,),
}
"""The kinds that know an option, of those that not all know: the others pass over it."""

_LEFT_OUT: Mapping[str, tuple[tuple[Any, ...], float]] = {
    "set_alpha_to_one": ((True,), 0.05),
    "final_sigmas_type": (("zero", None), 0.2),
    "lambda_min_clipped": ((float("-inf"), None), 1.0),
    "use_beta_sigmas": ((False, None), 1.5),
    "predict_x0": ((True,), 0.2),
    "disable_corrector": (([], None), 0.05),
    "solver_p": ((None,), 0.2),
}
"""Options without a place here: the values that change nothing, and how far others move a pixel."""

_STEPS = 50
"""In which diffusers' pipelines draw, unless they walk the whole chain."""

_LEAST, _MOST, _PURE = 1e-6, 1e6, 4096.0
"""Ends of sigma / alpha of a grid here, and what diffusers gives pure noise."""

Differences = dict[str, float]
"""Why pictures from the same noise differ from those of diffusers, and by how much at most.

As far as a pixel in [-1, 1] moved in 10 steps, with the exact denoiser of Gaussian data on a linear
chain: measured by the tests.
"""


def reads(kind: str, option: str) -> bool:
    """Whether a scheduler of a kind knows an option; one that does not passes over it."""
    return kind in _READ_BY.get(option, KINDS)


def sampler_of(
    kind: str, told: Mapping[str, Any], *, variance: Variance
) -> tuple[Sampler, Differences]:
    """The sampler of a scheduler, and in what it differs.

    Args:
        kind: Of `KINDS`.
        told: All of `OPTIONS`, by default where the kind does not read them.
        variance: Of a step of DDPM.
    """
    order = told["solver_order"]
    if kind in _SOLVERS:
        return _solver(kind, told)
    if kind == _UNIPC:
        # diffusers takes the names of other solvers' ways for bh2.
        variant: Literal["bh1", "bh2"] = "bh1" if told["solver_type"] == "bh1" else "bh2"
        differs = {} if order == 2 else {_is("solver_order", told): 0.5}
        return UniPC(p=3 if order == 3 else 2, variant=variant), differs
    if kind == _HEUN:
        return Heun(), {"its trapezoid is in sigma / alpha, and here in alpha and sigma": 0.1}
    if kind == _PNDM:
        start: Literal["plms", "runge_kutta"] = "plms" if told["skip_prk_steps"] else "runge_kutta"
        raw = told["prediction_type"] == "v_prediction"
        return PNDM(start=start), {_is("prediction_type", told): 0.3} if raw else {}
    if kind == DDPM:
        loud = variance != "beta_tilde" and told["timestep_spacing"] == "trailing"
        why = f"it adds noise to the finished picture ({_is('variance_type', told)}, trailing)"
        return Ancestral(variance=variance), {why: 2.0} if loud else {}
    samplers: Mapping[str, Sampler] = {
        _DDIM: DDIM(),
        _EULER: Euler(),
        _ANCESTRAL: EulerAncestral(),
    }
    return samplers[kind], {}


def _solver(kind: str, told: Mapping[str, Any]) -> tuple[Sampler, Differences]:
    """A DPM-Solver++ and in what it differs; the others solve the same equation."""
    order, algorithm = told["solver_order"], told["algorithm_type"]
    multi, noisy = kind == _MULTI, algorithm.startswith("sde-")
    known = ("dpmsolver++", "sde-dpmsolver++") if multi else ("dpmsolver++",)
    differs = {} if algorithm in known else {_is("algorithm_type", told): 2.0}
    if order == 1:
        return (Ancestral(variance="beta_tilde") if noisy else DDIM()), differs
    if told["solver_type"] == "heun":
        differs[_is("solver_type", told)] = 0.2
    # Of order 3 there half of the last term is taken, and the whole here.
    if order != 2:
        differs[_is("solver_order", told)] = 0.2
    if noisy:
        return DPMSolver2MSDE(), differs
    if multi:
        return (DPMSolver3M() if order == 3 else DPMSolver2M()), differs
    whole = told["final_sigmas_type"] != "sigma_min"
    why = "its steps of second order are two of its times long, and half as many are taken here"
    differs[why] = 0.4 if whole else 1.0
    return DPMSolver2S(), differs


def grid_of(
    kind: str, told: Mapping[str, Any], schedule: NoiseSchedule
) -> tuple[Grid, Differences]:
    """The grid of a scheduler, and in what it differs.

    Args:
        kind: Of `KINDS`.
        told: All of `OPTIONS`, with a spacing of `SPACINGS`, by default where the kind does not
            read them.
        schedule: The scheduler's.
    """
    spacing, offset = told["timestep_spacing"], told["steps_offset"]
    ratios = _ratios(told)
    if ratios != "spaced":
        return _by_ratio(kind, told, ratios, schedule)
    if kind in (_MULTI, _SINGLE, _UNIPC) and spacing != "trailing":
        return Spaced(spacing, offset=offset if spacing == "leading" else 0, spare=True), {}
    if spacing == "leading" and offset:
        return Spaced(spacing, offset=offset), {}
    if spacing == "linspace" and kind in (_EULER, _ANCESTRAL, _HEUN):
        return Spaced("even", offset=0), {}
    # Whatever the times, theirs are steps of T // steps.
    uneven = kind in (_DDIM, _PNDM) and spacing == "linspace"
    return SPACINGS[spacing], {_is("timestep_spacing", told): 0.2} if uneven else {}


def _by_ratio(
    kind: str,
    told: Mapping[str, Any],
    ratios: Literal["karras", "log_snr"],
    schedule: NoiseSchedule,
) -> tuple[Grid, Differences]:
    """The grid of a scheduler that places levels by their noise, and in what it differs."""
    ends = {key: told[key] for key in ("sigma_min", "sigma_max") if told[key] is not None}
    # Euler's and Heun's lie between the ends of the spacing, the others' between the chain's.
    inner = kind in (_EULER, _HEUN) and told["timestep_spacing"] != "linspace"
    if inner and not ends:
        offset = told["steps_offset"] if told["timestep_spacing"] == "leading" else 0
        return Spaced(told["timestep_spacing"], offset=offset, ratios=ratios), {}
    # From end to end of the chain, where no ends are told: a grid stays within its schedule.
    level = schedule(torch.tensor([1.0, schedule.t_max], dtype=torch.float64))
    least, most = (level.sigma / level.alpha).tolist()
    low = ends.get("sigma_min", _LEAST)
    high = ends.get("sigma_max", _PURE if math.isinf(most) else _MOST)
    beyond = (inner and len(ends) == 1) or any(not least <= end <= most for end in ends.values())
    why = ", ".join(_is(key, told) for key in ends)
    grid = (Karras if ratios == "karras" else LogSNR)(max(low, _LEAST), min(high, _MOST))
    return grid, {why: 0.2} if beyond else {}


def _ratios(told: Mapping[str, Any]) -> Literal["spaced", "karras", "log_snr"]:
    """How levels are placed between their ends; Lu's lambdas are even, too, as they are told."""
    if told["use_karras_sigmas"]:
        return "karras"
    spread = told["use_exponential_sigmas"] or told["use_lu_lambdas"]
    return "log_snr" if spread else "spaced"


def steps_of(sampler: Sampler, length: int, *, walks: bool) -> int:
    """In how many steps a pipeline draws, with as many calls of the network.

    Args:
        sampler: From `sampler_of`.
        length: Of the chain, T.
        walks: Whether every time of the chain is visited.
    """
    if walks:
        return length
    # A grid may leave room for fewer than T.
    return min(_STEPS // (2 if isinstance(sampler, DPMSolver2S) else 1), max(length // 2, 1))


def started(kind: str, told: Mapping[str, Any], level: Level) -> Differences:
    """How far the beginning moves pictures, where it is another than here.

    Args:
        kind: Of `KINDS`.
        told: All of `OPTIONS`.
        level: That drawing begins with.
    """
    scaled = kind in (_EULER, _ANCESTRAL, _HEUN) and told["timestep_spacing"] != "leading"
    if kind in (_PNDM, _HEUN) and level.alpha < FAINT * level.sigma:
        return {"it divides by next to nothing where the chain begins": 2.0}
    # Of four standard deviations half is left: data have about half of that of noise.
    by = 0.0 if scaled else 2 * (1 - level.sigma.item())
    if by < 0.005:
        return {}
    return {
        f"it begins with noise of standard deviation 1, and here of {level.sigma:.4g}": float(
            f"{by:.1g}"
        )
    }


def left_out(told: Mapping[str, Any]) -> Differences:
    """Options that change what is drawn and that nothing here has."""
    return {_is(key, told): by for key, (plain, by) in _LEFT_OUT.items() if told[key] not in plain}


def _is(key: str, told: Mapping[str, Any]) -> str:
    return f"{key} = {told[key]!r}"
