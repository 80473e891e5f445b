"""How a diffusers scheduler draws, as a sampler and a grid here, and what of it has no place."""

from collections.abc import Mapping
from typing import Any, Literal

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
    LogSNR,
    Sampler,
    UniPC,
    grids,
)
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
_SPREAD = (_MULTI, _SINGLE, _UNIPC, _EULER, _HEUN)
"""Those that can place levels by their noise."""

_LEFT_OUT: Mapping[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {
    "set_alpha_to_one": ((_DDIM, _PNDM), (True,)),
    "final_sigmas_type": ((_MULTI, _SINGLE, _UNIPC, _EULER), ("zero", None)),
    "lambda_min_clipped": (_SOLVERS, (float("-inf"), None)),
    "use_beta_sigmas": (_SPREAD, (False, None)),
    "predict_x0": ((_UNIPC,), (True,)),
    "disable_corrector": ((_UNIPC,), ([], None)),
    "solver_p": ((_UNIPC,), (None,)),
}
"""Options without a place here: the kinds that feel them, and the values that change nothing."""

_MOST, _PURE = 1e6, 4096.0
"""Largest sigma / alpha of a grid here, and that which diffusers gives pure noise."""


def sampler_of(
    kind: str, told: Mapping[str, Any], *, variance: Variance
) -> tuple[Sampler, list[str]]:
    """The sampler of a scheduler, and the keys that it does not have as they are told.

    Args:
        kind: Of `KINDS`.
        told: All of `OPTIONS`.
        variance: Of a step of DDPM.
    """
    order = told["solver_order"]
    if kind in _SOLVERS:
        return _solver(kind, told)
    if kind == _UNIPC:
        # diffusers takes the names of other solvers' ways for bh2.
        variant: Literal["bh1", "bh2"] = "bh1" if told["solver_type"] == "bh1" else "bh2"
        differs = [] if order in (2, 3) else ["solver_order"]
        return UniPC(p=3 if order == 3 else 2, variant=variant), differs
    samplers: Mapping[str, Sampler] = {
        DDPM: Ancestral(variance=variance),
        _DDIM: DDIM(),
        _PNDM: PNDM(start="plms" if told["skip_prk_steps"] else "runge_kutta"),
        _EULER: Euler(),
        _ANCESTRAL: EulerAncestral(),
        _HEUN: Heun(),
    }
    return samplers[kind], []


def _solver(kind: str, told: Mapping[str, Any]) -> tuple[Sampler, list[str]]:
    """A DPM-Solver++ and the keys that it does not have; the others solve the same equation."""
    order, algorithm = told["solver_order"], told["algorithm_type"]
    multi, noisy = kind == _MULTI, algorithm.startswith("sde-")
    known = ("dpmsolver++", "sde-dpmsolver++") if multi else ("dpmsolver++",)
    differs = [] if algorithm in known else ["algorithm_type"]
    if order == 1:
        return (Ancestral(variance="beta_tilde") if noisy else DDIM()), differs
    if told["solver_type"] == "heun":
        differs.append("solver_type")
    # Of order 3 there half of the last term is taken, and the whole here.
    if order != 2:
        differs.append("solver_order")
    if noisy:
        return DPMSolver2MSDE(), differs
    if multi:
        return (DPMSolver3M() if order == 3 else DPMSolver2M()), differs
    return DPMSolver2S(), differs


def grid_of(kind: str, told: Mapping[str, Any], *, pure: bool) -> tuple[Grid, list[str]]:
    """The grid of a scheduler, and the keys that it does not have as they are told.

    Args:
        kind: Of `KINDS`.
        told: All of `OPTIONS`, with a spacing of `SPACINGS`.
        pure: Whether its chain ends in pure noise.
    """
    if kind in _SPREAD:
        # From end to end of the chain, where no ends are told: a grid stays within its schedule.
        low = max(told["sigma_min"] or 0.0, 1e-6)
        high = min(told["sigma_max"] or (_PURE if pure else _MOST), _MOST)
        if told["use_karras_sigmas"]:
            return Karras(sigma_min=low, sigma_max=high), []
        if told["use_exponential_sigmas"] or (kind == _MULTI and told["use_lu_lambdas"]):
            return LogSNR(sigma_min=low, sigma_max=high), []
    # Only this spacing leaves room above its last time.
    spacing = told["timestep_spacing"]
    shifted = spacing == "leading" and told["steps_offset"] != 0
    return SPACINGS[spacing], ["steps_offset"] if shifted else []


def left_out(kind: str, told: Mapping[str, Any]) -> list[str]:
    """Keys of options that change what is drawn and that nothing here has."""
    return [
        key for key, (kinds, plain) in _LEFT_OUT.items() if kind in kinds and told[key] not in plain
    ]
