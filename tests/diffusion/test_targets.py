import pytest
import torch

from kao.diffusion import EDM, SCHEDULES, TARGETS, VE, FlowSchedule, solve
from kao.diffusion.denoiser import determinant
from kao.errors import ConfigError

targets = pytest.mark.parametrize("target", TARGETS)
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def built(target: str):
    entry = TARGETS[target]
    return entry() if isinstance(entry, type) else entry


@targets
@schedules
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_solve_inverts_the_target(schedule, target, dtype, tolerance):
    curve, row = SCHEDULES[schedule]().build(), built(target)
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0.05, 0.9, 64, dtype=torch.float64) * curve.t_max
    x0, eps = torch.randn(2, 64, 1, 2, 2, generator=generator, dtype=dtype)
    level = curve(t).like(x0)
    a, b = row(level)
    prediction = solve(level.alpha * x0 + level.sigma * eps, a * x0 + b * eps, level, row)
    # x_0 is known to the noise-to-signal ratio's worth of rounding, eps to its inverse.
    ratio = level.snr.sqrt()
    assert ((prediction.x0 - x0) / (1 + 1 / ratio)).abs().max() < tolerance
    assert ((prediction.eps - eps) / (1 + ratio)).abs().max() < tolerance


@targets
def test_rows_are_finite_from_clean_to_pure_noise(target):
    schedule = FlowSchedule()
    for value in (0.0, 1.0):
        row = built(target)(schedule(torch.tensor(value, dtype=torch.float64)))
        assert all(torch.as_tensor(c).isfinite() for c in row)


def test_edm_on_ve_is_table_1_of_its_paper():
    sigma_data = 0.5
    sigma = torch.tensor([0.002, 0.3, 1.0, 80.0], dtype=torch.float64)
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()
    a, b = EDM(sigma_data)(VE().build()(sigma))
    torch.testing.assert_close(a, (1 - c_skip) / c_out, rtol=1e-10, atol=0)
    torch.testing.assert_close(b, -c_skip * sigma / c_out, rtol=1e-12, atol=0)


@schedules
def test_edm_outputs_have_unit_variance_on_every_schedule(schedule):
    curve = SCHEDULES[schedule]().build()
    t = torch.linspace(0, curve.t_max, 33, dtype=torch.float64)
    a, b = EDM(0.5)(curve(t))
    torch.testing.assert_close(0.25 * a**2 + b**2, torch.ones_like(t))


@pytest.mark.parametrize(
    ("target", "schedule", "weight"),
    [
        ("eps", "linear", lambda snr: snr),
        ("x0", "linear", lambda snr: torch.ones_like(snr)),
        ("v", "linear", lambda snr: snr + 1),
        ("v", "vp_cosine", lambda snr: snr + 1),
        ("velocity", "flow", lambda snr: (1 + snr.sqrt()) ** 2),
        ("edm", "ve", lambda snr: snr + 4),
        ("edm", "cosine", lambda snr: snr + 4),
        ("edm", "flow", lambda snr: snr + 4),
    ],
)
def test_the_natural_weight_of_plain_mse_is_the_published_one(target, schedule, weight):
    curve = SCHEDULES[schedule]().build()
    level = curve(torch.linspace(0.01, 1, 50, dtype=torch.float64) * curve.t_max)
    natural = (determinant(level, built(target)) / level.sigma) ** 2
    torch.testing.assert_close(natural, weight(level.snr), rtol=1e-10, atol=1e-30)


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan")])
def test_edm_refuses_a_sigma_data_that_is_not_positive(sigma_data):
    with pytest.raises(ConfigError, match="sigma_data"):
        EDM(sigma_data)
