"""What a pipeline of diffusers draws from the folder that we write is what we draw."""

import json
from dataclasses import replace

import pytest
import torch
from giving import SMALL, config_of, drawn, noise_of, trained

from kao.config.conditioning import ConditionsConfig
from kao.config.loss import LossConfig
from kao.config.sampling import SamplingConfig
from kao.data.augment import AugmentConfig
from kao.diffusion import (
    EDM,
    VE,
    Ancestral,
    Cosine,
    Flow,
    Linear,
    Sigmoid,
    VPCosine,
    grids,
    targets,
    trajectory,
)
from kao.errors import ConfigError
from kao.exchange import import_model
from kao.exchange.diffusers_folder import one_later, write_diffusers
from kao.networks import DiTConfig
from kao.networks.embeddings import sinusoids

RESIDUAL = replace(SMALL, embedding="adm", level="film", resample="residual")


@pytest.fixture
def drawn_there(monkeypatch, tmp_path):
    """drawn_there(given, name, steps): what a pipeline of that name draws from the same noise."""

    def draw(given, pipeline, *, steps, noise):
        import diffusers
        from diffusers.pipelines.ddim import pipeline_ddim
        from diffusers.pipelines.ddpm import pipeline_ddpm
        from diffusers.schedulers import scheduling_ddpm

        write_diffusers(given, tmp_path / "out")
        start = given.schedule(torch.tensor(float(given.schedule.t_max), dtype=torch.float64))
        first = start.sigma.float() * noise
        more = torch.Generator().manual_seed(1)
        for module in (pipeline_ddim, pipeline_ddpm):
            monkeypatch.setattr(module, "randn_tensor", lambda *a, **k: first)
        monkeypatch.setattr(
            scheduling_ddpm, "randn_tensor", lambda shape, **k: torch.randn(shape, generator=more)
        )
        made = getattr(diffusers, pipeline).from_pretrained(tmp_path / "out")
        made.set_progress_bar_config(disable=True)
        pictures = made(batch_size=len(noise), num_inference_steps=steps, output_type="np").images
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)

    return draw


def shown(x):
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config_of(Linear(steps=200, beta_last=0.1), targets.eps), id="linear-eps"),
        pytest.param(config_of(Cosine(zero_terminal_snr=True), targets.v), id="cosine-to-noise-v"),
        pytest.param(config_of(VPCosine(), targets.v), id="continuous-v"),
        pytest.param(
            config_of(VPCosine(shift=-1.4), targets.x0, network=RESIDUAL), id="shifted-x0"
        ),
        pytest.param(config_of(Sigmoid(shift=1.0), targets.v), id="a-table-v"),
    ],
)
def test_ddim_draws_the_same_pictures_there(config, drawn_there):
    given = trained(config)
    theirs = drawn_there(given, "DDIMPipeline", steps=10, noise=noise_of(2))
    ours = shown(drawn(given))
    assert ours.std() > 0.1
    assert (theirs - ours).abs().max() < 1e-4


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
def test_ddpm_takes_the_same_steps_there_with_the_same_noise(variance, drawn_there):
    sampling = SamplingConfig(sampler=Ancestral(variance=variance), steps=12)
    config = config_of(Linear(steps=12, beta_last=0.6), targets.eps, sampling=sampling)
    given = trained(config, steps=12)
    noise = noise_of(2)
    theirs = drawn_there(given, "DDPMPipeline", steps=12, noise=noise)

    start = given.schedule(torch.tensor(12.0, dtype=torch.float64)).sigma.float()
    more = torch.Generator().manual_seed(1)
    steps = trajectory(
        config.wrap(given.denoiser),
        sampling.sampler,
        start * noise,
        grids.uniform(given.schedule, 12),
        noise=lambda x: torch.randn(x.shape, generator=more),
    )
    *_, ours = steps
    assert (theirs - shown(ours)).abs().max() < 1e-4


def test_leading_steps_are_leading_there(drawn_there):
    config = config_of(Cosine(steps=100), targets.v, sampling=SamplingConfig(grid=grids.leading))
    given = trained(config)
    first = given.schedule(torch.tensor(91.0, dtype=torch.float64)).sigma.float()
    start = given.schedule(torch.tensor(100.0, dtype=torch.float64)).sigma.float()
    theirs = drawn_there(given, "DDIMPipeline", steps=10, noise=noise_of(2) * first / start)
    assert (theirs - shown(drawn(given))).abs().max() < 1e-4


def test_what_a_pipeline_does_not_tell_or_ask_changes_no_picture(drawn_there):
    config = config_of(VPCosine(), targets.v, loss=LossConfig(bound=0.001))
    config = replace(config, data=replace(config.data, augment=AugmentConfig(edm=0.1)))
    given = trained(config)
    assert given.network.takes.augmentations > 0 and given.denoiser.learned_variance
    theirs = drawn_there(given, "DDIMPipeline", steps=10, noise=noise_of(2))
    assert (theirs - shown(drawn(given))).abs().max() < 1e-4


@pytest.mark.parametrize("endpoint", [True, False])
def test_the_turned_layer_makes_of_a_label_what_it_made_of_the_next(endpoint):
    layer = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(1000.0)
    before = sinusoids(labels + 1, 16, endpoint=endpoint) @ layer.T
    after = sinusoids(labels, 16, endpoint=endpoint) @ one_later(layer, endpoint=endpoint).T
    assert (before - after).abs().max() < 1e-3
    assert (before - sinusoids(labels, 16, endpoint=endpoint) @ layer.T).abs().max() > 0.5


def test_our_own_reader_reads_the_folder(tmp_path):
    given = trained(config_of(Cosine(), targets.v))
    write_diffusers(given, tmp_path / "out")
    model = import_model(str(tmp_path / "out"))
    assert (model.schedule, model.target, model.size) == (Cosine(), targets.v, 16)
    weights = model.build().state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in given.weights.items())


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (config_of(VPCosine(), targets.v, network=DiTConfig(width=16, depth=1, heads=2)), "kind"),
        (config_of(VPCosine(), targets.v, network=replace(SMALL, stem=2, attention=())), "stem"),
        (config_of(VPCosine(), targets.velocity), "[target]"),
        (config_of(Flow(), targets.v), "[schedule]"),
        (config_of(VE(), EDM()), "edm"),
        (config_of(VPCosine(), targets.v, input_scaling=True), "input_scaling"),
        (
            config_of(
                VPCosine(),
                targets.v,
                conditions=ConditionsConfig(classes=True, names=("cat", "dog")),
            ),
            "conditions.classes",
        ),
    ],
)
def test_what_diffusers_lacks_is_refused_by_its_key(config, word, tmp_path):
    with pytest.raises(ConfigError) as caught:
        write_diffusers(trained(config), tmp_path / "out")
    assert word in str(caught.value) and "export" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_says_which_pipeline_it_is(tmp_path):
    for sampler, name in ((Ancestral(), "DDPMPipeline"), (None, "DDIMPipeline")):
        sampling = SamplingConfig() if sampler is None else SamplingConfig(sampler=sampler)
        given = trained(config_of(VPCosine(), targets.v, sampling=sampling), steps=3)
        notes = write_diffusers(given, tmp_path / "out")
        index = json.loads((tmp_path / "out/model_index.json").read_text())
        assert index["_class_name"] == name
        page = (tmp_path / "out/README.md").read_text()
        assert name in page and notes and all(note in page for note in notes)
