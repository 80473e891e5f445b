"""No dead switch: whatever option of the mathematics is turned, the loss, its gradient or the
pictures change.
"""

import dataclasses
from functools import cache

import pytest
import torch
from torch import nn

from kao.config import RunConfig
from kao.config.loss import LossConfig, PerceptualConfig
from kao.config.sampling import SamplingConfig
from kao.diffusion import (
    EDM,
    GRIDS,
    NORMS,
    SAMPLERS,
    SCHEDULES,
    TARGETS,
    THRESHOLDS,
    TIMES,
    WEIGHTS,
    Denoiser,
    Linear,
    grids,
    sample,
)
from kao.errors import ConfigError
from kao.networks import UNetConfig
from kao.networks.dropout import seeded

OTHER = {
    "knots": (0.0, 0.2, 1.0),
    "variance": "beta",
    "churn_max": 0.3,
    "churn_min": 0.6,
    "churn_noise": 1.2,
    "p": 3,
    "memory": 3,
    "warmup": 20,
    "sigma_min": 0.05,
    "betas": tuple(i / 200 for i in range(1, 61)),
}
"""Values for options whose other value cannot be guessed from the first."""

LEARNED = ("bins", "floor", "memory", "smoothing", "warmup")

BESIDE = {
    **{name: {"bins": 6, "warmup": 1} for name in LEARNED},
    "churn_max": {"churn": 0.3},
    "churn_min": {"churn": 0.3},
    "churn_noise": {"churn": 0.3},
}
"""Options that only matter with another one on."""


LEAST = 1e-4
"""Smallest change, relative to what changes, that counts as one."""


class Net(nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        self.conv = nn.Conv2d(3, outputs, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4, generator=generator)

    def forward(self, x, label, condition):
        return 1.5 * self.conv(x).tanh() + (label / 500).sin().reshape(-1, 1, 1, 1)


def denoiser_of(config: RunConfig) -> Denoiser:
    learned = config.loss.bound > 0
    return Denoiser(
        Net(6 if learned else 3),
        config.schedule.build(),
        config.target,
        sigma_data=config.target.sigma_data if isinstance(config.target, EDM) else None,
        learned_variance=learned,
    )


def trained(config: RunConfig) -> torch.Tensor:
    """Losses of a few batches, learned times included, and the last gradient."""
    denoiser = denoiser_of(config)
    loss = config.loss.build(denoiser.schedule, seed=0)
    generator = torch.Generator().manual_seed(1)
    x0 = (torch.randn(24, 3, 16, 16, generator=generator) / 2).clamp(-1, 1)
    values = []
    for _ in range(8):
        losses = loss(denoiser, x0, None, generator)
        loss.times.update(losses.t, losses.pull.double(), losses.error.double())
        values.append(losses.value.detach())
    losses.value.mean().backward()
    parameters = [*denoiser.parameters(), *loss.parameters()]
    return torch.cat([*values, *(p.grad.flatten() for p in parameters)])


def drawn(config: RunConfig) -> torch.Tensor:
    denoiser = denoiser_of(config)
    times = config.times(denoiser.schedule)
    size = (3, 8, 8)
    return sample(config.wrap(denoiser), config.sampling.sampler, times, size, seeds=[0, 1])


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether they differ by no more than rounding might."""
    return one.shape == other.shape and bool((one - other).norm() <= LEAST * one.norm())


def other_value(entry, field):
    """The entry's defaults with one field changed, as the pair (before, after)."""
    beside = BESIDE.get(field.name, {})
    known = {f.name for f in dataclasses.fields(entry)}
    beside = {name: value for name, value in beside.items() if name in known}
    before = entry(**beside)
    value = getattr(before, field.name)
    if field.name in OTHER:
        candidates = [OTHER[field.name]]
    elif isinstance(value, bool):
        candidates = [not value]
    elif isinstance(value, str):
        hint = field.type
        candidates = [c for c in getattr(hint, "__args__", ()) if c != value]
    else:
        candidates = [value // 2, value * 2 + 1] if isinstance(value, int) else []
        candidates += [value * 0.6, value * 0.6 + 0.3, value - 0.4]
    for candidate in candidates:
        if candidate == value:
            continue
        try:
            after = entry(**{**beside, field.name: candidate})
            if entry in SCHEDULES.values():
                after.build()  # where the values of a table are checked together
            return before, after
        except ConfigError:
            continue
    raise AssertionError(f"no other value of {entry.__name__}.{field.name} is known")


def options(registry):
    return [
        pytest.param(entry, field, id=f"{name}.{field.name}")
        for name, entry in registry.items()
        if isinstance(entry, type)
        for field in dataclasses.fields(entry)
    ]


@cache
def effect(config: RunConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses with their gradient, and pictures."""
    both = trained(config), drawn(config)
    assert all(values.isfinite().all() for values in both)
    return both


def changes(before: RunConfig, after: RunConfig) -> bool:
    pairs = zip(effect(before), effect(after), strict=True)
    return not all(same(one, other) for one, other in pairs)


def with_loss(**options) -> RunConfig:
    return RunConfig(schedule=Linear(), loss=LossConfig(**options))


def with_sampling(**options) -> RunConfig:
    return RunConfig(schedule=Linear(), sampling=SamplingConfig(**{"steps": 6, **options}))


PLAIN = with_loss()


@pytest.mark.parametrize(("entry", "field"), options(SCHEDULES))
def test_every_option_of_a_schedule_changes_what_is_learned_or_drawn(entry, field):
    before, after = other_value(entry, field)
    assert changes(RunConfig(schedule=before), RunConfig(schedule=after))


@pytest.mark.parametrize(("entry", "field"), options(TARGETS))
def test_every_option_of_a_target_changes_what_is_learned(entry, field):
    before, after = other_value(entry, field)
    assert changes(RunConfig(target=before), RunConfig(target=after))


@pytest.mark.parametrize("key,registry", [("times", TIMES), ("weight", WEIGHTS), ("norm", NORMS)])
def test_the_entries_of_the_loss_all_differ(key, registry):
    # Few bins, so that a short test fills them.
    few = {"loss_moment": {"bins": 6, "warmup": 1}, "warped": {"bins": 6, "warmup": 1}}
    made = [
        entry(**few.get(name, {})) if isinstance(entry, type) else entry
        for name, entry in registry.items()
    ]
    seen = [effect(with_loss(**{key: entry}))[0] for entry in made]
    assert not any(same(a, b) for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize(("entry", "field"), options(TIMES))
def test_every_option_of_the_times_changes_what_is_learned(entry, field):
    before, after = other_value(entry, field)
    assert changes(with_loss(times=before), with_loss(times=after))


@pytest.mark.parametrize(("entry", "field"), options(WEIGHTS))
def test_every_option_of_a_weight_changes_what_is_learned(entry, field):
    before, after = other_value(entry, field)
    assert changes(with_loss(weight=before), with_loss(weight=after))


@pytest.mark.parametrize(("entry", "field"), options(NORMS))
def test_every_option_of_a_norm_changes_what_is_learned(entry, field):
    before, after = other_value(entry, field)
    assert changes(with_loss(norm=before), with_loss(norm=after))


@pytest.mark.parametrize(
    "option",
    [
        {"offset_noise": 0.1},
        {"input_perturbation": 0.1},
        {"bound": 0.001},
        {"uncertainty": True},
        {"perceptual": PerceptualConfig(weight=0.1)},
    ],
    ids=lambda option: next(iter(option)),
)
def test_every_option_of_the_loss_changes_what_is_learned(option):
    assert not same(effect(with_loss(**option))[0], effect(PLAIN)[0])


def test_the_options_of_the_perceptual_term_change_what_is_learned(tmp_path):
    def learned(**options):
        return effect(with_loss(perceptual=PerceptualConfig(**{"weight": 0.1, **options})))[0]

    file = tmp_path / "network.pt"
    torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())).save(file)
    before = learned()
    assert not same(learned(weight=0.2), before)
    assert not same(learned(below=0.3), before)
    assert not same(learned(network=str(file)), before)


@pytest.mark.parametrize(
    ("key", "registry"), [("sampler", SAMPLERS), ("grid", GRIDS), ("threshold", THRESHOLDS)]
)
def test_the_entries_of_sampling_all_differ(key, registry):
    # Names that the field knows for one thing: euler_a at its defaults is ddpm but for rounding.
    twins = ("trailing", "euler_a")
    named = {n: e() if isinstance(e, type) else e for n, e in registry.items() if n not in twins}
    named |= {"learned": grids.Learned(OTHER["knots"])} if key == "grid" else {}
    seen = [effect(with_sampling(**{key: entry}))[1] for entry in named.values()]
    assert not any(same(a, b) for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize(("entry", "field"), options(SAMPLERS))
def test_every_option_of_a_sampler_changes_the_pictures(entry, field):
    before, after = other_value(entry, field)
    assert changes(with_sampling(sampler=before), with_sampling(sampler=after))


@pytest.mark.parametrize(("entry", "field"), [p for p in options(GRIDS) if p.id != "learned.knots"])
def test_every_option_of_a_grid_changes_the_pictures(entry, field):
    before, after = other_value(entry, field)
    assert changes(with_sampling(grid=before), with_sampling(grid=after))


@pytest.mark.parametrize(("entry", "field"), options(THRESHOLDS))
def test_every_option_of_a_threshold_changes_the_pictures(entry, field):
    before, after = other_value(entry, field)
    assert changes(with_sampling(threshold=before), with_sampling(threshold=after))


UNET_OPTIONS = {
    "width": 12,
    "levels": (1, 1),
    "blocks": 2,
    "attention": (8,),
    "heads": 2,
    "head_width": 4,
    "middle_attention": False,
    "up_attention": "last",
    "qk_norm": True,
    "dropout": 0.5,
    "groups": 1,
    "norm_eps": 0.1,
    "level": "film",
    "embedding": "adm",
    "label_scale": 0.5,
    "resample": "conv_right",
    "resample_filter": "fir",
    "skip_scale": 0.5,
    "input_pyramid": True,
    "stem": 2,
}
"""Another value for each option of the network below."""

UNET_BESIDE = {"resample_filter": {"resample": "residual"}, "up_attention": {"attention": (8,)}}


def said_by(network: UNetConfig) -> torch.Tensor:
    """What a U-Net says in training, its weights moved by the same for all."""
    torch.manual_seed(0)
    built = network.build(channels=3, size=16)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * parameter.numel() ** -0.25)
    torch.manual_seed(1)
    with seeded(built, torch.tensor([1, 2])):
        return built(torch.randn(2, 3, 16, 16), torch.tensor([10.0, 500.0]))


@pytest.mark.parametrize("option", [field.name for field in dataclasses.fields(UNetConfig)])
def test_every_option_of_the_u_net_changes_what_it_says(option):
    small = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(), dropout=0.0)
    before = dataclasses.replace(small, **UNET_BESIDE.get(option, {}))
    after = dataclasses.replace(before, **{option: UNET_OPTIONS[option]})
    assert not same(said_by(before), said_by(after))
