"""diffusers' schedulers as schedules, targets and ways to draw, and back."""

import re

import pytest
import torch

from kao.config import SamplingConfig
from kao.diffusion import (
    DDIM,
    PNDM,
    TARGETS,
    Ancestral,
    Betas,
    Clip,
    Cosine,
    DPMSolver2M,
    DPMSolver2MSDE,
    DPMSolver2S,
    DPMSolver3M,
    Dynamic,
    Euler,
    Flow,
    Heun,
    Karras,
    Laplace,
    Linear,
    LogSNR,
    ScaledLinear,
    Sigmoid,
    UniPC,
    VPCosine,
    grids,
    targets,
)
from kao.errors import ConfigError
from kao.exchange.betas import betas_of, named
from kao.exchange.drawing import KINDS
from kao.exchange.schedulers import TARGET_NAMES, VARIANCES, read_scheduler, write_scheduler

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

TRAINED = torch.linspace(0.1, 0.7, 20).pow(3).tolist()
CHAINS = {
    "linear": ({}, Linear()),
    "short": ({"num_train_timesteps": 50, "beta_end": 0.2}, Linear(50, beta_last=0.2)),
    "scaled_linear": (
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        ScaledLinear(),
    ),
    "squaredcos_cap_v2": ({"beta_schedule": "squaredcos_cap_v2"}, Cosine()),
    "sigmoid": ({"beta_schedule": "sigmoid"}, Betas),
    "trained_betas": ({"trained_betas": TRAINED}, Betas),
}
RESCALED = {"rescale_betas_zero_snr": True}


@pytest.mark.parametrize("rescaled", [{}, RESCALED], ids=["as it is", "zero terminal snr"])
@pytest.mark.parametrize("name", CHAINS)
def test_the_table_is_that_of_diffusers(name, rescaled):
    options, expected = CHAINS[name]
    theirs = diffusers.DDPMScheduler(**options, **rescaled, prediction_type="v_prediction")
    schedule = read_scheduler(dict(theirs.config)).schedule
    assert isinstance(schedule, expected if expected is Betas else type(expected))
    if expected is not Betas and not rescaled:
        assert schedule == expected
    abar, table = schedule.build().abar[1:], theirs.alphas_cumprod.double()
    assert abar.shape == table.shape
    # diffusers multiplies up in float32.
    torch.testing.assert_close(abar, table, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    "config",
    [Linear(), Linear(20, 0.01, 0.4), ScaledLinear(), Cosine(), Cosine(steps=60), Sigmoid()],
    ids=str,
)
def test_betas_that_a_formula_gives_are_known_by_its_name(config):
    assert named(betas_of(config.build()).float()) == config


def test_betas_that_none_gives_are_kept_to_the_last_digit():
    betas = betas_of(Laplace(steps=40).build())
    config = named(betas)
    assert isinstance(config, Betas)
    assert torch.equal(torch.tensor(config.betas, dtype=torch.float64), betas)


@pytest.mark.parametrize("betas", [torch.tensor([0.1]), torch.tensor([1, 2]), torch.rand(2, 2)])
def test_what_is_no_line_of_betas_is_refused(betas):
    with pytest.raises(ConfigError, match="line of at least 2 numbers"):
        named(betas)


@pytest.mark.parametrize(
    ("betas", "words"),
    [
        ((0.1,), "schedule.betas has 1 numbers"),
        ((0.1, 1.0, 0.2), r"schedule.betas\[1\] = 1.0"),
        ((0.1, 0.0), r"schedule.betas\[1\] = 0.0"),
        ((0.1, float("nan")), r"schedule.betas\[1\] = nan"),
    ],
)
def test_a_table_with_what_is_no_variance_is_refused(betas, words):
    with pytest.raises(ConfigError, match=words):
        Betas(betas).build()


def test_a_written_table_may_end_in_pure_noise():
    assert Betas((0.1, 0.2, 1.0)).build().abar[-1] == 0
    assert torch.equal(Betas().build().abar, Linear().build().abar)


@pytest.mark.parametrize("name", TARGET_NAMES)
def test_targets_have_another_name_there(name):
    assert read_scheduler({"prediction_type": name}).target is TARGET_NAMES[name]
    assert set(TARGET_NAMES.values()) == {targets.eps, targets.x0, targets.v}


@pytest.mark.parametrize("name", VARIANCES)
def test_the_variance_of_ddpm_is_that_of_the_ancestral_sampler(name):
    told = read_scheduler(dict(diffusers.DDPMScheduler(variance_type=name).config))
    assert told.sampling.sampler == Ancestral(variance=VARIANCES[name])
    assert told.sampling.steps == 1000
    assert told.learned_variance is (name == "learned_range")


@pytest.mark.parametrize(
    ("options", "threshold"),
    [
        ({}, Clip()),
        ({"clip_sample_range": 1.5}, Clip(1.5)),
        ({"clip_sample": False}, None),
        ({"thresholding": True}, Clip()),
        (
            {"thresholding": True, "sample_max_value": 1e7, "dynamic_thresholding_ratio": 0.9},
            Dynamic(0.9),
        ),
    ],
)
def test_what_is_done_to_predicted_pictures_is_told(options, threshold):
    told = read_scheduler(dict(diffusers.DDIMScheduler(**options).config))
    assert told.sampling.threshold == threshold and not told.notes


def test_a_bound_of_contrast_that_is_not_known_here_is_noted():
    told = read_scheduler({"thresholding": True, "sample_max_value": 2.0})
    assert told.sampling.threshold == Dynamic() and "sample_max_value" in told.notes[0]


@pytest.mark.parametrize(
    ("kind", "sampler", "grid", "threshold"),
    [
        ("DDIMScheduler", DDIM(), grids.leading, Clip()),
        (
            "DPMSolverMultistepScheduler",
            DPMSolver2M(),
            grids.Spaced("linspace", offset=0, spare=True),
            None,
        ),
        ("EulerDiscreteScheduler", Euler(), grids.Spaced("even", offset=0), None),
    ],
)
def test_other_schedulers_tell_how_they_draw(kind, sampler, grid, threshold):
    told = read_scheduler(dict(getattr(diffusers, kind)().config) | {"_class_name": kind})
    assert (told.sampling.sampler, told.sampling.grid) == (sampler, grid)
    assert (told.sampling.threshold, told.sampling.steps) == (threshold, 50)
    assert told.learned_variance is None


MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"


@pytest.mark.parametrize(
    ("kind", "options", "sampler", "differs"),
    [
        (MULTI, {"solver_order": 1}, DDIM(), []),
        (MULTI, {"solver_order": 3}, DPMSolver3M(), ["solver_order = 3"]),
        (MULTI, {"solver_order": 4}, DPMSolver2M(), ["solver_order = 4"]),
        (MULTI, {"solver_type": "heun"}, DPMSolver2M(), ["solver_type = 'heun'"]),
        (MULTI, {"algorithm_type": "sde-dpmsolver++"}, DPMSolver2MSDE(), []),
        (
            MULTI,
            {"algorithm_type": "sde-dpmsolver++", "solver_order": 1},
            Ancestral(variance="beta_tilde"),
            [],
        ),
        (MULTI, {"algorithm_type": "dpmsolver"}, DPMSolver2M(), ["algorithm_type = 'dpmsolver'"]),
        (MULTI, {"lambda_min_clipped": -5.1}, DPMSolver2M(), ["lambda_min_clipped = -5.1"]),
        (MULTI, {"final_sigmas_type": "sigma_min"}, DPMSolver2M(), ["final_sigmas_type = 's"]),
        (MULTI, {"use_beta_sigmas": True}, DPMSolver2M(), ["use_beta_sigmas = True"]),
        (
            MULTI,
            {"set_alpha_to_one": False, "skip_prk_steps": True},
            DPMSolver2M(),
            ["set_alpha_to_one = False, skip_prk_steps = True in its scheduler_config.json is no"],
        ),
        (SINGLE, {"solver_order": 3}, DPMSolver2S(), ["solver_order = 3"]),
        (SINGLE, {"algorithm_type": "sde-dpmsolver++"}, DPMSolver2MSDE(), ["algorithm_type = "]),
        ("UniPCMultistepScheduler", {"solver_order": 3}, UniPC(p=3), ["solver_order = 3"]),
        ("UniPCMultistepScheduler", {"solver_type": "bh1"}, UniPC(variant="bh1"), []),
        ("UniPCMultistepScheduler", {"predict_x0": False}, UniPC(), ["predict_x0 = False"]),
        ("UniPCMultistepScheduler", {"disable_corrector": [0]}, UniPC(), ["disable_corrector"]),
        ("DDIMScheduler", {"set_alpha_to_one": False}, DDIM(), ["set_alpha_to_one = False"]),
        ("DDIMScheduler", {"steps_offset": 1}, DDIM(), []),
        ("DDIMScheduler", {"steps_offset": 1, "timestep_spacing": "trailing"}, DDIM(), []),
        ("PNDMScheduler", {"set_alpha_to_one": True}, PNDM(start="runge_kutta"), []),
        ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}, PNDM(), []),
        ("PNDMScheduler", {}, PNDM(start="runge_kutta"), ["set_alpha_to_one = False"]),
    ],
)
def test_what_changes_a_picture_has_its_sampler_or_a_note(kind, options, sampler, differs):
    told = read_scheduler({"_class_name": kind, **options})
    assert told.sampling.sampler == sampler
    assert len(told.notes) == len(differs)
    assert all(words in note for words, note in zip(differs, told.notes, strict=True))


@pytest.mark.parametrize("kind", [MULTI, "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
@pytest.mark.parametrize(
    ("option", "grid"), [("use_karras_sigmas", Karras), ("use_exponential_sigmas", LogSNR)]
)
def test_levels_placed_by_their_noise_are_those_of_diffusers(kind, option, grid):
    theirs = getattr(diffusers, kind)(**{option: True})
    theirs.set_timesteps(12)
    told = read_scheduler(dict(theirs.config) | {"_class_name": kind})
    assert isinstance(told.sampling.grid, grid)
    schedule = told.schedule.build()
    levels = schedule(told.sampling.grid(schedule, 12)[:-1])
    expected = theirs.sigmas.double().unique().flip(0)[:12]  # Heun's are there twice
    torch.testing.assert_close(levels.sigma / levels.alpha, expected, rtol=1e-3, atol=0)


def test_ends_of_levels_that_are_told_are_kept():
    table = {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}
    told = read_scheduler({**table, "sigma_min": 0.1, "sigma_max": 10.0})
    assert told.sampling.grid == Karras(sigma_min=0.1, sigma_max=10.0)


def test_heun_has_ends_of_its_own_where_none_are_told():
    told = read_scheduler({"_class_name": "HeunDiscreteScheduler"})
    theirs = diffusers.HeunDiscreteScheduler()
    assert told.sampling.sampler == Heun()
    assert told.schedule == Linear(beta_first=0.00085, beta_last=0.012)
    assert (theirs.config.beta_start, theirs.config.beta_end) == (0.00085, 0.012)


def test_an_option_that_is_not_known_is_noted():
    told = read_scheduler({"wobble": 3, "rest": None, "_diffusers_version": "0.9"})
    assert len(told.notes) == 1 and "wobble = 3" in told.notes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_that_diffusers_writes_is_known(kind):
    told = read_scheduler(dict(getattr(diffusers, kind)().config) | {"_class_name": kind})
    assert not any("is no option" in note for note in told.notes)
    # PNDM ends before the clean picture.
    assert bool(told.notes) is (kind in ("PNDMScheduler", SINGLE, "HeunDiscreteScheduler"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_start", "a"),
        ("beta_end", None),
        ("beta_end", float("nan")),
        ("num_train_timesteps", "1000"),
        ("num_train_timesteps", True),
        ("trained_betas", [0.1, "x"]),
        ("trained_betas", 0.1),
        ("clip_sample_range", "a"),
        ("prediction_type", ["v"]),
        ("sample_max_value", None),
        ("thresholding", "yes"),
        ("solver_order", None),
        ("timestep_spacing", 3),
    ],
)
def test_a_value_of_another_kind_is_refused_by_file_and_key(key, value):
    words = re.escape(f"{key} = {value!r} in scheduler_config.json is damaged")
    with pytest.raises(ConfigError, match=words):
        read_scheduler({key: value})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"prediction_type": "flow_prediction"}, "prediction_type = 'flow_prediction'"),
        ({"beta_schedule": "laplace"}, "beta_schedule = 'laplace'"),
        ({"variance_type": "learned"}, "variance_type = 'learned'"),
        ({"timestep_spacing": "random"}, "timestep_spacing = 'random'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "_class_name = 'FlowMatch"),
        ({"_class_name": MULTI, "use_flow_sigmas": True}, "use_flow_sigmas = True"),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "timestep_type = 'continuous'",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_key(table, words):
    with pytest.raises(ConfigError, match=words):
        read_scheduler(table)


@pytest.mark.parametrize(
    "schedule",
    [
        Linear(),
        Linear(30, 0.01, 0.3, zero_terminal_snr=True),
        ScaledLinear(),
        Cosine(zero_terminal_snr=True),
        Cosine(steps=40, offset=0.1),
        Cosine(steps=40, shift=-1.0),
        Sigmoid(steps=40),
        Laplace(steps=40),
        Betas((0.1, 0.2, 0.3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("learned", [False, True])
def test_what_is_written_is_read_back_and_is_what_diffusers_makes_of_it(schedule, learned):
    sampling = SamplingConfig(grid=grids.linspace, threshold=Clip(1.25))
    table = write_scheduler(schedule, targets.v, sampling=sampling, learned_variance=learned)
    told = read_scheduler(table)
    abar = schedule.build().abar
    torch.testing.assert_close(told.schedule.build().abar, abar, rtol=1e-12, atol=1e-15)
    assert (told.target, told.learned_variance) == (targets.v, learned)
    assert (told.sampling.grid, told.sampling.threshold) == (grids.linspace, Clip(1.25))
    theirs = diffusers.DDPMScheduler.from_config(table)
    torch.testing.assert_close(theirs.alphas_cumprod.double(), abar[1:], rtol=5e-5, atol=1e-7)


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_variance_and_thresholds_go_back(variance):
    for threshold in (None, Dynamic(0.9)):
        sampling = SamplingConfig(sampler=Ancestral(variance=variance), threshold=threshold)
        table = write_scheduler(Linear(), targets.eps, sampling=sampling, learned_variance=False)
        told = read_scheduler(table).sampling
        assert (told.sampler, told.threshold) == (sampling.sampler, threshold)


@pytest.mark.parametrize(
    ("schedule", "target", "threshold", "words"),
    [
        (Linear(), targets.velocity, None, "they know eps, x0 and v"),
        (Linear(), TARGETS["edm"](), None, "they know eps, x0 and v"),
        (VPCosine(), targets.v, None, r"\[schedule\] is none"),
        (Flow(), targets.v, None, r"\[schedule\] is none"),
        (Linear(), targets.v, Dynamic(limit=2.0), "sampling.threshold"),
    ],
)
def test_what_diffusers_has_no_word_for_is_refused(schedule, target, threshold, words):
    sampling = SamplingConfig(threshold=threshold)
    with pytest.raises(ConfigError, match=words):
        write_scheduler(schedule, target, sampling=sampling, learned_variance=False)
