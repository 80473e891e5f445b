"""Pictures of diffusers' schedulers and those that are drawn after reading their configuration.

From the same noise, with the exact denoiser of Gaussian data: they are equal, or a note says that
they differ and by how much.
"""

import inspect
import re
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from kao.config import RunConfig
from kao.diffusion import Denoiser, trajectory
from kao.exchange import drawing, schedulers
from kao.exchange.drawing import KINDS
from kao.exchange.schedulers import read_scheduler

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")  # for use_beta_sigmas

STEPS = 10
CLOSE = 0.01  # of pixels in [-1, 1]: little more than a grey level
DDPM, DDIM, PNDM, MULTI, SINGLE, UNIPC, EULER, ANCESTRAL, HEUN = KINDS
SOLVERS, SPREAD = (MULTI, SINGLE), (MULTI, SINGLE, UNIPC, EULER, HEUN)
KARRAS, PURE = {"use_karras_sigmas": True}, {"rescale_betas_zero_snr": True}
V = {"prediction_type": "v_prediction"}
ENDED = {"final_sigmas_type": "sigma_min"}

OPTIONS = [
    ({}, KINDS),
    (V, KINDS),
    ({"prediction_type": "sample"}, (DDPM, DDIM, MULTI, SINGLE, UNIPC, EULER, HEUN)),
    ({"beta_schedule": "squaredcos_cap_v2"}, KINDS),
    ({"beta_schedule": "squaredcos_cap_v2", "set_alpha_to_one": True}, (DDIM, PNDM)),
    ({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, KINDS),
    ({**PURE, **V}, (DDPM, DDIM, MULTI, UNIPC, EULER, ANCESTRAL)),
    ({**PURE, **V, **KARRAS}, (MULTI, UNIPC, EULER)),
    (KARRAS, SPREAD),
    ({"use_exponential_sigmas": True}, SPREAD),
    ({"use_beta_sigmas": True}, SPREAD),
    ({"use_lu_lambdas": True}, (MULTI,)),
    ({**KARRAS, "sigma_min": 0.1, "sigma_max": 10.0}, (UNIPC, EULER)),
    ({**KARRAS, "sigma_min": 0.002, "sigma_max": 80.0}, (UNIPC, EULER)),
    ({**KARRAS, "sigma_min": 0.1}, (UNIPC, EULER)),
    ({"use_exponential_sigmas": True, "sigma_max": 80.0}, (UNIPC, EULER)),
    (ENDED, (MULTI, SINGLE, UNIPC, EULER)),
    ({"set_alpha_to_one": True}, (DDIM, PNDM)),
    ({"set_alpha_to_one": False}, (DDIM, PNDM)),
    ({"skip_prk_steps": True, "set_alpha_to_one": True}, (PNDM,)),
    ({"skip_prk_steps": True, **V}, (PNDM,)),
    ({"variance_type": "fixed_small_log"}, (DDPM,)),
    ({"variance_type": "fixed_large"}, (DDPM,)),
    ({"clip_sample": False}, (DDPM, DDIM, HEUN)),
    ({"clip_sample": True, "clip_sample_range": 0.5}, (DDPM, DDIM, HEUN)),
    ({"thresholding": True}, (DDPM, DDIM, MULTI, SINGLE, UNIPC)),
    (
        {"thresholding": True, "sample_max_value": 1e7, "dynamic_thresholding_ratio": 0.7},
        (DDPM, DDIM, MULTI, SINGLE, UNIPC),
    ),
    ({"thresholding": True, "sample_max_value": 1.2}, (DDPM, DDIM, MULTI, SINGLE, UNIPC)),
    ({"solver_order": 1}, (MULTI, SINGLE, UNIPC)),
    ({"solver_order": 3}, (MULTI, SINGLE, UNIPC)),
    ({"solver_type": "heun"}, SOLVERS),
    ({"solver_type": "bh1", **ENDED}, (UNIPC,)),
    ({"predict_x0": False, **ENDED}, (UNIPC,)),
    ({"disable_corrector": list(range(STEPS))}, (UNIPC,)),
    ({"lower_order_final": True}, (MULTI, SINGLE, UNIPC)),
    ({"euler_at_final": True}, (MULTI,)),
    ({"algorithm_type": "sde-dpmsolver++"}, (MULTI,)),
    ({"algorithm_type": "sde-dpmsolver++", "solver_order": 1}, (MULTI,)),
    ({"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, (MULTI,)),
    ({"algorithm_type": "sde-dpmsolver", **ENDED}, (MULTI,)),
    ({"algorithm_type": "dpmsolver", **ENDED}, SOLVERS),
    ({"lambda_min_clipped": -3.0}, SOLVERS),
    ({"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"}, SOLVERS),
    ({"steps_offset": 1}, [kind for kind in KINDS if kind != SINGLE]),
    ({"steps_offset": 1, **KARRAS}, (EULER, HEUN)),
    ({"steps_offset": 1, "set_alpha_to_one": True}, (DDIM, PNDM)),
]
OPTIONS += [
    ({**options, placed: True}, [kind for kind in kinds if kind in SPREAD])
    for options, kinds in OPTIONS
    for placed in ("use_karras_sigmas", "use_exponential_sigmas")
    if not any(key.startswith("use_") for key in options) and "beta_schedule" not in options
]
COSINE = {"beta_schedule": "squaredcos_cap_v2"}  # of the others' levels two are one in float32
OPTIONS += [({**COSINE, **KARRAS}, (EULER, HEUN))]
OPTIONS += [({**COSINE, "use_exponential_sigmas": True}, (EULER, HEUN))]


def spaced(kind, options):
    """Whether the spacing means anything: not to levels from end to end of the chain."""
    placed = any(key.startswith("use_") for key in options)
    return kind in (EULER, HEUN) if placed else kind != SINGLE


SPACINGS = [{"timestep_spacing": name} for name in ("leading", "linspace", "trailing")]
CASES = [
    (kind, {**spacing, **options})
    for options, kinds in OPTIONS
    for kind in kinds
    for spacing in (SPACINGS if spaced(kind, options) else [{}])
]


class Exact(nn.Module):
    """What a perfect network says of pixels N(0.3, 0.5^2), by the label that it is told."""

    def __init__(self, schedule, target):
        super().__init__()
        self.schedule, self.target = schedule, target

    def forward(self, x, label, condition=None):
        t = (label.double()[:1] + 1).clamp(0, self.schedule.t_max)
        alpha, sigma = level = self.schedule(t).like(x)
        residual = (x - alpha * 0.3) / (alpha**2 * 0.25 + sigma**2)
        a, b = self.target(level)
        return a * (0.3 + alpha * 0.25 * residual) + b * sigma * residual


def normal(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


START = normal(0)(torch.empty(2, 3, 4, 4, dtype=torch.float64))


@torch.no_grad()
def drawn_there(kind, options, network, steps):
    """As diffusers' pipelines do."""
    scheduler = getattr(diffusers, kind)(**options)
    scheduler.set_timesteps(steps)
    x, noise = START * float(scheduler.init_noise_sigma), normal(1)
    generator, more = torch.Generator().manual_seed(1), {}
    if kind in (DDPM, ANCESTRAL):
        more = {"generator": generator}
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), torch.as_tensor(t).reshape(1))
        if options.get("algorithm_type", "").startswith("sde"):
            more = {"variance_noise": noise(x)}  # drawn in float32 otherwise
        x = scheduler.step(output, t, x, **more).prev_sample
    return x


@torch.no_grad()
def drawn_here(told, network, steps):
    schedule = told.schedule.build()
    denoise = replace(RunConfig(), sampling=told.sampling).wrap(
        Denoiser(network, schedule, told.target)
    )
    times = told.sampling.grid(schedule, steps)
    x = schedule(times[0]).sigma * START
    *_, x = trajectory(denoise, told.sampling.sampler, x, times, noise=normal(1))
    return x


def both(kind, options, steps=STEPS):
    """Pictures of both in as many calls, and what is told."""
    told = read_scheduler({"_class_name": kind, **options})
    network = Exact(told.schedule.build(), told.target)
    ours = steps if kind == DDPM else steps * told.sampling.steps // 50
    there, here = drawn_there(kind, options, network, steps), drawn_here(told, network, ours)
    return there.clamp(-1, 1), here.clamp(-1, 1), told


def figures(told):
    """By how much the notes say that pictures differ, cause by cause."""
    return [float(by) for by in re.findall(r"by up to (\d+(?:\.\d+)?)", " ".join(told.notes))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_pictures_are_those_of_diffusers_or_a_note_says_by_how_much_they_differ(kind, options):
    there, here, told = both(kind, options)
    difference = (there - here).abs().max().item()
    assert not [note for note in told.notes if "is no option" in note]
    assert difference < max(CLOSE, sum(figures(told))), told.notes


@pytest.mark.parametrize("steps", [7, 30])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("kind", [DDPM, MULTI, UNIPC, EULER, ANCESTRAL])
def test_times_are_those_of_diffusers_in_any_number_of_steps(kind, spacing, steps):
    there, here, told = both(kind, {"timestep_spacing": spacing}, steps)
    assert not told.notes and (there - here).abs().max() < CLOSE


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 33, 50, 250])
@pytest.mark.parametrize("kind", [MULTI, UNIPC, EULER, ANCESTRAL])
def test_grids_are_the_timesteps_of_diffusers_counted_from_one(kind, spacing, steps):
    if spacing == "linspace" and steps == 1 and kind in (EULER, ANCESTRAL):
        return  # theirs begins at the cleanest time, and ours at the noisiest
    options = {"timestep_spacing": spacing, "steps_offset": 2}
    theirs = getattr(diffusers, kind)(**options)
    theirs.set_timesteps(steps)
    told = read_scheduler({"_class_name": kind, **options})
    ours = told.sampling.grid(told.schedule.build(), steps)[:-1] - 1
    torch.testing.assert_close(ours, theirs.timesteps.double(), atol=1e-3, rtol=0)


def test_as_many_calls_are_made_as_a_pipeline_makes():
    assert read_scheduler({"_class_name": SINGLE}).sampling.steps == 25  # of two calls each
    assert read_scheduler({"_class_name": SINGLE, "solver_order": 1}).sampling.steps == 50


@pytest.mark.parametrize("kind", KINDS)
def test_options_and_defaults_are_those_of_the_class(kind):
    there = inspect.signature(getattr(diffusers, kind)).parameters
    known = {key for key in schedulers._OPTIONS if drawing.reads(kind, key)}
    assert set(there) <= known
    # What a class does not know is told by none of these but for the variance of the network.
    assert known - set(there) <= {"variance_type"}
    defaults = {key: option.default for key, option in schedulers._OPTIONS.items()}
    defaults |= drawing.OF_KIND.get(kind, {})
    differ = {key for key in there if there[key].default not in (defaults[key], None)}
    same = {"solver_type", "disable_corrector", "lower_order_final", "variance_type"}
    assert differ <= same  # is drawn by either default


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (EULER, {"thresholding": True, "sample_max_value": 1.5}),
        (ANCESTRAL, {"clip_sample": True}),
        (PNDM, {"thresholding": True, "set_alpha_to_one": True}),
        (MULTI, {"clip_sample": True, "clip_sample_range": 0.3, "timestep_spacing": "trailing"}),
        (HEUN, {"rescale_betas_zero_snr": True, "thresholding": True}),
        (SINGLE, {"timestep_spacing": "trailing", "steps_offset": 1}),
        (DDIM, {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}),
        (ANCESTRAL, {"use_karras_sigmas": True}),
        (UNIPC, {"use_lu_lambdas": True, "lambda_min_clipped": -3.0}),
    ],
    ids=str,
)
def test_an_option_that_a_scheduler_passes_over_is_passed_over_here_and_named(kind, options):
    known = {key: value for key, value in options.items() if drawing.reads(kind, key)}
    told, plain = (read_scheduler({"_class_name": kind, **each}) for each in (options, known))
    assert (told.sampling, told.schedule) == (plain.sampling, plain.schedule)
    note = told.notes[-1]
    assert kind in note and all(key in note for key in options if key not in known)


def test_ends_in_a_short_chain_are_within_it():
    for kind, count in product((MULTI, UNIPC), (2, 3, 20, 50)):
        told = read_scheduler(
            {
                "_class_name": kind,
                "num_train_timesteps": count,
                "beta_end": 0.5,
                "timestep_spacing": "leading",
                "steps_offset": 1 if count > 2 else 0,
            }
        )
        schedule = told.schedule.build()
        times = told.sampling.grid(schedule, told.sampling.steps)
        assert times[0] <= schedule.t_max


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"predict_epsilon": False}, {"prediction_type": "sample"}),
        ({"predict_epsilon": True}, {"prediction_type": "epsilon"}),
        ({"timesteps": 500}, {"num_train_timesteps": 500}),
        ({"clip_predicted_image": False}, {"clip_sample": False}),
        ({"tensor_format": "pt"}, {}),
        ({"predict_epsilon": True, "prediction_type": "sample"}, {"prediction_type": "sample"}),
    ],
    ids=str,
)
def test_old_names_of_options_are_known(old, new):
    told = read_scheduler({"_class_name": DDPM, **old})
    assert told == read_scheduler({"_class_name": DDPM, **new})
