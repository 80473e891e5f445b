import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian, law_after, scalar
from torch import nn

from kao.config.sampling import SamplingConfig, refuse_uneven
from kao.diffusion import (
    SCHEDULES,
    TARGETS,
    VE,
    Clipped,
    Denoiser,
    DiscreteSchedule,
    Flow,
    Linear,
    SeededNoise,
    grids,
    sample,
    trajectory,
)
from kao.diffusion.posterior import forward_variance
from kao.diffusion.samplers import (
    DDIM,
    PNDM,
    SAMPLERS,
    Ancestral,
    DPMSolver2M,
    DPMSolver2MSDE,
    DPMSolver3M,
    Euler,
    EulerAncestral,
    Heun,
    UniPC,
)
from kao.errors import ConfigError

SHAPES = {name: config() for name, config in SCHEDULES.items()} | {
    "linear-zero-terminal": Linear(zero_terminal_snr=True),
}
BUILT = {name: config.build() for name, config in SHAPES.items()}
VARIANTS = {name: sampler() for name, sampler in SAMPLERS.items()} | {
    "ddpm-beta": Ancestral(variance="beta"),
    "ddim-eta-half": DDIM(eta=0.5),
    "ddim-eta-one": DDIM(eta=1.0),
    "pndm-runge-kutta": PNDM(start="runge_kutta"),
    "euler-churned": Euler(churn=0.3),
    "heun-churned": Heun(churn=0.3),
    "unipc-bh1": UniPC(variant="bh1"),
    "unipc-3-bh1": UniPC(p=3, variant="bh1"),
    "euler_a-eta-half": EulerAncestral(eta=0.5),
}
LEARNED = {"ddpm-learned": Ancestral(variance="learned")}
CHURNED = ("euler-churned", "heun-churned")
RANDOM = ("ddpm", "ddim-eta", "dpm++2m_sde", "lcm", *CHURNED)
variants = pytest.mark.parametrize("sampler", VARIANTS.values(), ids=VARIANTS)
schedules = pytest.mark.parametrize("schedule", BUILT.values(), ids=BUILT)


def no_noise(x):
    raise AssertionError("a deterministic sampler asked for noise")


def end_of(denoise, sampler, x, times, noise):
    for step in trajectory(denoise, sampler, x, times, noise=noise):
        x = step
    return x


def last(schedule):
    return schedule(scalar(schedule.t_max))


class Net(nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        self.conv = nn.Conv2d(3, outputs, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)

    def forward(self, x, label, condition):
        return self.conv(x).tanh() + (label / 500).sin().reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "schedule", "target"),
    [
        *((name, "linear", "v") for name in VARIANTS | LEARNED),
        *(("dpm++2m", schedule, target) for schedule in BUILT for target in TARGETS),
    ],
)
def test_every_schedule_target_and_sampler_compose(name, schedule, target):
    schedule = BUILT[schedule]
    entry = TARGETS[target]
    row = entry() if isinstance(entry, type) else entry
    network = Net(outputs=6 if name in LEARNED else 3)
    options = {"sigma_data": 0.5, "learned_variance": name in LEARNED}
    if target == "eps" and last(schedule).alpha < 1e-6:
        with pytest.raises(ConfigError, match=r"choose target = .v. or .velocity."):
            Denoiser(network, schedule, row, **options)
        return
    denoiser = Denoiser(network, schedule, row, **options)
    sampler = (VARIANTS | LEARNED)[name]
    for denoise, grid in ((Clipped(denoiser), grids.uniform), (denoiser, grids.Karras())):
        x = sample(denoise, sampler, grid(schedule, 6), (3, 4, 4), seeds=[0, 1])
        assert x.shape == (2, 3, 4, 4) and x.dtype == torch.float32
        assert x.isfinite().all()


@pytest.mark.parametrize("name", [n for n in VARIANTS if n != "lcm" and n not in CHURNED])
def test_sampling_ends_in_the_law_of_the_data(name):
    # Not lcm, which needs another kind of network; not a churn of 0.3, too much for 250 steps.
    sampler, data = VARIANTS[name], Gaussian(Linear().build())
    times = grids.uniform(data.schedule, 250)
    x = sample(data, sampler, times, (1, 64, 64), seeds=range(4))
    assert x.mean().item() == pytest.approx(data.mean, abs=0.02)
    assert x.std().item() == pytest.approx(data.std, abs=0.02)


@pytest.mark.parametrize("name", ["linear", "ve"])
def test_sampling_starts_from_the_seeds_noise_at_the_first_level(name):
    data = Gaussian(BUILT[name])
    times = grids.Karras()(data.schedule, 5)
    noise = SeededNoise([3, 4])
    x = data.schedule(times[0]).sigma * noise(torch.empty(2, 1, 4, 4))
    expected = end_of(data, Ancestral(), x, times, noise)
    assert torch.equal(sample(data, Ancestral(), times, (1, 4, 4), seeds=[3, 4]), expected)


@variants
def test_a_picture_depends_on_its_seed_and_not_on_its_batch(sampler):
    data = Gaussian(Linear().build())
    times = grids.uniform(data.schedule, 5)
    together = sample(data, sampler, times, (3, 4, 4), seeds=[11, 12, 13])
    alone = sample(data, sampler, times, (3, 4, 4), seeds=[12])
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])


@variants
@pytest.mark.parametrize("name", ["linear", "flow"])
@pytest.mark.parametrize("steps", [1, 6])
def test_the_denoiser_is_never_asked_about_time_zero(sampler, name, steps):
    schedule = BUILT[name]
    data, asked = Gaussian(schedule), []

    class Spy:
        schedule = data.schedule

        def __call__(self, x, t):
            asked.append(t.item())
            return data(x, t)

    x = sample(Spy(), sampler, grids.uniform(schedule, steps), (1, 2, 2), seeds=[0])
    assert min(asked) > 0 and len(asked) >= steps
    assert max(asked) <= schedule.t_max
    assert x.isfinite().all()


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in CHURNED])
def test_no_noise_is_drawn_on_the_last_step(name):
    # Churn is drawn before a step, the last one included, as in the paper.
    data = Gaussian(Linear().build())
    VARIANTS[name].step(data, torch.ones(1, 1, 2, 2), scalar(1), scalar(0), noise=no_noise)


@pytest.mark.parametrize("name", VARIANTS)
def test_just_the_samplers_that_are_random_draw_noise(name):
    data, drawn = Gaussian(Flow().build()), []

    def noise(x):
        drawn.append(x)
        return torch.zeros_like(x)

    VARIANTS[name].step(data, torch.zeros(1, 1, 1, 1), scalar(0.9), scalar(0.5), noise=noise)
    assert bool(drawn) == (name.startswith(RANDOM) or name in ("euler_a", "euler_a-eta-half"))


@variants
def test_a_trajectory_yields_one_image_a_step(sampler):
    data = Gaussian(Flow().build())
    x = torch.zeros(2, 1, 2, 2)
    states = list(
        trajectory(data, sampler, x, grids.uniform(data.schedule, 7), noise=torch.zeros_like)
    )
    assert len(states) == 7
    assert all(s.shape == x.shape and s.dtype == torch.float32 for s in states)


def test_sampling_builds_no_graph():
    denoiser = Denoiser(Net(), Flow().build(), TARGETS["v"])
    x = sample(denoiser, DDIM(), grids.uniform(denoiser.schedule, 2), (3, 4, 4), seeds=[0])
    assert not x.requires_grad


def pairs_of_times(schedule):
    """From pure noise if the schedule has it, from the middle, and to clean images."""
    for high, low in ((1.0, 0.7), (0.5, 0.2), (0.1, 0.0)):
        yield scalar(high * schedule.t_max), scalar(low * schedule.t_max)


SAME = {
    "ddim-eta-one is ddpm": (DDIM(eta=1.0), Ancestral()),
    "euler is ddim": (Euler(), DDIM()),
    "euler_a is ddpm": (EulerAncestral(), Ancestral()),
    "euler_a-eta-zero is euler": (EulerAncestral(eta=0.0), Euler()),
    "euler_a-eta-half is ddim-eta-half": (EulerAncestral(eta=0.5), DDIM(eta=0.5)),
    "first dpm++2m is euler": (DPMSolver2M(), Euler()),
    "first dpm++3m is euler": (DPMSolver3M(), Euler()),
    "first unipc is euler": (UniPC(), Euler()),
    "first dpm++2m_sde is ddpm": (DPMSolver2MSDE(), Ancestral()),
}


@schedules
@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_samplers_that_are_one_in_exact_arithmetic_agree(pair, schedule):
    data = Gaussian(schedule)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    for t, s in pairs_of_times(schedule):
        one, other = (a.step(data, x, t, s, noise=torch.ones_like)[0] for a in pair)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_clipped_euler_takes_eps_from_the_clipped_image_and_ddim_leaves_it():
    schedule = Linear().build()
    data, x = Gaussian(schedule), torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
    t, s = scalar(300), scalar(100)
    here, there, p = schedule(t), schedule(s), data(x, t)
    clipped = p.x0.clamp(-0.2, 0.2)
    eps = (x - here.alpha * clipped) / here.sigma
    for sampler, used in ((Euler(), eps), (DDIM(), p.eps)):
        moved, _ = sampler.step(Clipped(data, 0.2), x, t, s, noise=no_noise)
        torch.testing.assert_close(moved, there.alpha * clipped + there.sigma * used)


@schedules
def test_the_last_step_of_every_sampler_but_pndm_returns_the_predicted_image(schedule):
    # PNDM extrapolates eps on its last step as on any other.
    data, times = Gaussian(schedule), grids.uniform(schedule, 4)
    for name, sampler in VARIANTS.items():
        if name.startswith("pndm") or name in CHURNED:
            continue
        asked = []

        class Spy:
            schedule = data.schedule

            def __call__(self, x, t, asked=asked):
                asked.append(data(x, t))
                return asked[-1]

        x = sample(Spy(), sampler, times, (1, 2, 2), seeds=[0])
        torch.testing.assert_close(x, asked[-1].x0, rtol=1e-5, atol=1e-5, msg=name)


def test_ancestral_variances_are_beta_and_its_posterior_share():
    schedule = Linear().build()
    data = Gaussian(schedule)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for t in (2, 500, 1000):
        here, there = scalar(t), scalar(t - 1)
        beta = betas[t - 1].item()
        assert forward_variance(schedule(here), schedule(there)).item() == pytest.approx(beta)
        share = (schedule(there).sigma / schedule(here).sigma).item() ** 2
        for variance, expected in (("beta", beta), ("beta_tilde", beta * share)):
            step = Ancestral(variance=variance).step
            mean, _ = step(data, x, here, there, noise=torch.zeros_like)
            moved, _ = step(data, x, here, there, noise=torch.ones_like)
            assert ((moved - mean) ** 2).item() == pytest.approx(expected, rel=1e-9)


def test_heun_on_ve_is_algorithm_1_of_karras_et_al():
    data = Gaussian(VE().build())
    times = grids.Karras()(data.schedule, 18)
    x = 80 * torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    ours = end_of(data, Heun(), x, times, no_noise)
    for t, s in pairwise(times):
        d = (x - data(x, t).x0) / t
        euler = x + (s - t) * d
        if s > 0:
            d = (d + (euler - data(euler, s).x0) / s) / 2
        x = x + (s - t) * d
    torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-12)


def test_heun_on_flow_is_the_trapezoid_on_its_velocity():
    data = Gaussian(Flow().build())
    times = grids.uniform(data.schedule, 10)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)

    def velocity(x, t):
        p = data(x, t)
        return p.eps - p.x0

    ours = end_of(data, Heun(), x, times, no_noise)
    for t, s in pairwise(times):
        d = velocity(x, t)
        if s > 0:
            d = (d + velocity(x + (s - t) * d, s)) / 2
        x = x + (s - t) * d
    torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-12)


LEAVE_NOISE = (Heun(), Heun(churn=0.3), Ancestral(variance="beta"))
GRIDS = {
    "uniform": grids.uniform,
    "leading": grids.leading,
    "linspace": grids.linspace,
    "karras": grids.Karras(),
    "log_snr": grids.LogSNR(),
    "learned": grids.Learned(knots=(0.0, 0.05, 0.2, 0.6, 1.0)),
}


def root_mean_square(data, sampler, times):
    mean, variance = law_after(data, sampler, times)
    return (mean**2 + variance).sqrt().item()


@pytest.mark.parametrize("name", GRIDS)
@variants
def test_few_steps_draw_pictures_and_no_explosion_wherever_they_are_allowed(sampler, name):
    exact = math.hypot(0.3, 0.5)  # of the data
    found = {}
    for schedule, curve in BUILT.items():
        if name in ("leading", "linspace") and not isinstance(curve, DiscreteSchedule):
            continue
        if schedule == "ve" and name in ("karras", "log_snr") and sampler in LEAVE_NOISE:
            continue  # see the next test
        for steps in range(1, 7):
            try:
                refuse_uneven(SamplingConfig(sampler, GRIDS[name], steps))
            except ConfigError:
                continue
            found[schedule, steps] = root_mean_square(
                Gaussian(curve), sampler, GRIDS[name](curve, steps)
            )
    # The most by UniPC with bh1, of which its docstring warns.
    most = 5 if getattr(sampler, "variant", "") == "bh1" else 2.6
    assert {at: rms for at, rms in found.items() if not rms < most * exact} == {}


@pytest.mark.parametrize("grid", [grids.Karras(), grids.LogSNR()])
@pytest.mark.parametrize(("sampler", "share"), list(zip(LEAVE_NOISE, (0.5, 0.5, 1.0), strict=True)))
def test_on_ve_some_samplers_leave_of_the_noise_in_two_steps_and_little_in_ten(
    sampler, share, grid
):
    data = Gaussian(BUILT["ve"])
    two, ten = (root_mean_square(data, sampler, grid(data.schedule, n)) for n in (2, 10))
    assert two == pytest.approx(80 * share, rel=0.01)  # it starts from 80
    assert ten < 2 * math.hypot(0.3, 0.5)


def test_churned_heun_on_ve_is_algorithm_2_of_karras_et_al():
    data = Gaussian(VE().build())
    times = grids.Karras()(data.schedule, 18)
    start = 80 * torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    least, most, size = 0.05, 50.0, 1.003
    for gamma in (0.1, math.sqrt(2) - 1):
        sampler = Heun(churn=gamma, churn_min=least, churn_max=most, churn_noise=size)
        ours = end_of(data, sampler, start, times, SeededNoise(range(5)))
        x, noise = start, SeededNoise(range(5))
        for t, s in pairwise(times):
            if least <= t <= most:
                raised = t + gamma * t
                x, t = x + (raised**2 - t**2).sqrt() * size * noise(x), raised
            d = (x - data(x, t).x0) / t
            euler = x + (s - t) * d
            if s > 0:
                d = (d + (euler - data(euler, s).x0) / s) / 2
            x = x + (s - t) * d
        torch.testing.assert_close(ours, x, rtol=1e-10, atol=1e-10)


@schedules
def test_churn_moves_images_to_the_law_of_a_noisier_level_within_the_schedule(schedule):
    data, asked = Gaussian(schedule), []

    class Spy:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x, t):
            asked.append((x, t))
            return data(x, t)

    for share in (0.2, 0.9, 0.9999, 1.0):
        t, s = scalar(share * schedule.t_max), scalar(0.0)
        here = schedule(t)
        spread = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
        spread[0] = 1

        def noise(x):
            unit = torch.zeros_like(x)
            unit[1] = 1
            return unit

        Euler(churn=0.25, churn_max=1e9).step(Spy(), spread, t, s, noise=noise)
        x, raised = asked[-1]
        there = schedule(raised)
        assert t <= raised <= schedule.t_max
        # A unit image and a unit noise carry: alpha'/alpha, and the variance that is missing.
        variance = x[0].item() ** 2 * here.sigma**2 + x[1].item() ** 2
        assert variance.item() == pytest.approx(there.sigma.item() ** 2, rel=1e-9)
        if raised < schedule.t_max:
            ratio = (there.sigma / there.alpha) / (here.sigma / here.alpha)
            assert ratio.item() == pytest.approx(1.25, rel=1e-9)


def test_heun_without_churn_is_unchanged_to_the_bit():
    data = Gaussian(Linear().build())
    times = grids.uniform(data.schedule, 10)
    x = SeededNoise([1, 2])(torch.empty(2, 1, 4, 4))
    ours = end_of(data, Heun(), x, times, no_noise)
    for t, s in pairwise(times):
        here, there, p = data.schedule(t), data.schedule(s), data(x, t)
        euler = there.alpha * p.x0 + there.sigma * p.eps
        if s == 0:
            x = euler
            break
        q = data(euler, s)
        x = x + (there.alpha - here.alpha) * (p.x0 + q.x0) / 2
        x = x + (there.sigma - here.sigma) * (p.eps + q.eps) / 2
    assert torch.equal(ours, x)


OPTIONS = {
    "ddpm.variance": (Ancestral(), Ancestral(variance="beta")),
    "ddpm.variance=learned": (Ancestral(), Ancestral(variance="learned")),
    "ddim.eta": (DDIM(), DDIM(eta=0.2)),
    "pndm.start": (PNDM(), PNDM(start="runge_kutta")),
    "unipc.p": (UniPC(), UniPC(p=3)),
    "unipc.variant": (UniPC(), UniPC(variant="bh1")),
    "euler_a.eta": (EulerAncestral(), EulerAncestral(eta=0.9)),
} | {
    f"{name}.{option}": (kind(churn=start), kind(**{"churn": 0.1, option: value}))
    for name, kind in (("euler", Euler), ("heun", Heun))
    for option, start, value in (
        ("churn", 0.0, 0.2),
        ("churn_min", 0.1, 0.5),
        ("churn_max", 0.1, 0.5),
        ("churn_noise", 0.1, 1.003),
    )
}


@pytest.mark.parametrize("pair", OPTIONS.values(), ids=OPTIONS)
def test_every_option_changes_the_pictures(pair):
    denoiser = Denoiser(Net(6), Linear().build(), TARGETS["v"], learned_variance=True)
    times = grids.uniform(denoiser.schedule, 8)
    one, other = (sample(denoiser, s, times, (3, 4, 4), seeds=[0]) for s in pair)
    assert (one - other).abs().max() > 1e-4


def test_no_option_is_left_out_of_the_test_above():
    named = {
        f"{name}.{field.name}"
        for name, sampler in SAMPLERS.items()
        for field in dataclasses.fields(sampler)
    }
    assert named == {key.split("=")[0] for key in OPTIONS}


@pytest.mark.parametrize("kind", [DDIM, EulerAncestral])
@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan, math.inf])
def test_an_eta_outside_its_range_is_refused(kind, eta):
    with pytest.raises(ConfigError, match=r"sampler\.eta"):
        kind(eta=eta)


@pytest.mark.parametrize("kind", [Euler, Heun])
@pytest.mark.parametrize(
    "options",
    [
        {"churn": -0.1},
        {"churn": 0.5},
        {"churn": math.nan},
        {"churn_min": -1.0},
        {"churn_min": math.nan},
        {"churn_min": 2.0, "churn_max": 1.0},
        {"churn_max": math.inf},
        {"churn_max": math.nan},
        {"churn_noise": 0.0},
        {"churn_noise": math.inf},
        {"churn_noise": math.nan},
    ],
    ids=str,
)
def test_a_churn_outside_its_range_is_refused(kind, options):
    with pytest.raises(ConfigError, match=rf"sampler\.{next(iter(options))} = "):
        kind(**options)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        (Ancestral, "variance", "small"),
        (PNDM, "start", "heun"),
        (UniPC, "p", 4),
        (UniPC, "variant", "bh3"),
    ],
)
def test_another_choice_is_refused(kind, option, value):
    with pytest.raises(ConfigError, match=rf"sampler\.{option} = '?{value}"):
        kind(**{option: value})


def test_a_learned_variance_is_refused_where_the_network_has_none():
    data = Gaussian(Linear().build())
    with pytest.raises(ConfigError, match="without a variance"):
        sample(data, Ancestral("learned"), grids.uniform(data.schedule, 3), (1, 2, 2), seeds=[0])


def test_a_learned_share_of_zero_and_one_are_the_two_fixed_variances():
    data, noise = Gaussian(Linear().build()), torch.ones_like
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    for share, variance in ((0, "beta_tilde"), (1, "beta")):

        class Sharing:
            schedule = data.schedule

            def __call__(self, x, t, share=share):
                return data(x, t)._replace(variance=torch.full_like(x, share))

        for t, s in ((2, 1), (500, 300), (1000, 999)):
            t, s = scalar(t), scalar(s)
            learned, _ = Ancestral("learned").step(Sharing(), x, t, s, noise=noise)
            fixed, _ = Ancestral(variance).step(data, x, t, s, noise=noise)
            torch.testing.assert_close(learned, fixed, rtol=1e-12, atol=1e-12)
