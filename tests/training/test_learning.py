"""What takes minutes to learn.  `pytest -m slow`."""

import itertools

import pytest
import torch

from kao.config import RunConfig, SamplingConfig
from kao.config.sections import DataConfig, EMAConfig, TrainingConfig
from kao.data import prepare
from kao.data.augment import AugmentConfig
from kao.data.toy_faces import ToyFaces
from kao.diffusion import Heun
from kao.networks import UNetConfig
from kao.runs import draw
from kao.training import OptimizerConfig, Trapezoid

pytestmark = pytest.mark.slow

FACES = 4


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "faces"
    return prepare(ToyFaces(FACES, size=16), size=16, out=folder)


@pytest.fixture(scope="module")
def learned(faces):
    """Configuration and denoiser after 3,000 steps on four faces: a minute and a half."""
    config = RunConfig(
        length="3000 steps",
        data=DataConfig(size=16, augment=AugmentConfig(flip=False)),
        network=UNetConfig(
            width=32,
            levels=(1, 2),
            blocks=1,
            attention=(),
            dropout=0.0,
            groups=8,
            level="film",
            stem=2,
        ),
        optimizer=OptimizerConfig(rate=2e-3, schedule=Trapezoid(warmup=1000, cooldown=0.5)),
        ema=EMAConfig(decay=0.99),
        training=TrainingConfig(batch=16, precision="fp32"),
        sampling=SamplingConfig(sampler=Heun(), steps=40),
    )
    trainer = config.build(faces, torch.device("cpu"))
    for _ in trainer.steps():
        pass
    (average,) = trainer.ema.values()
    trainer.denoiser.load_state_dict(average.average)
    return config, trainer.denoiser.eval()


def psnr(error):
    """Peak signal-to-noise ratio in dB of byte differences."""
    return 20 * torch.log10(255 / error.double().square().mean((-3, -2, -1)).sqrt())


def test_every_picture_drawn_is_one_of_the_four_faces(faces, learned):
    config, denoiser = learned
    drawn = next(draw(denoiser, config, indices=range(32), seed=1)).int()
    originals = torch.from_numpy(faces.images.copy()).int()
    match = psnr(drawn[:, None] - originals[None])  # (32, FACES)
    nearest = match.max(dim=1)
    assert nearest.values.min() > 25
    # Each face is a quarter of the distribution that was learned.
    assert set(nearest.indices.tolist()) == set(range(FACES))


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.5])
def test_a_noisy_face_is_recognised_in_one_step(faces, learned, noise):
    _, denoiser = learned
    x0 = torch.from_numpy(faces.images.copy()).float() / 127.5 - 1
    t = torch.full((FACES,), noise, dtype=torch.float64)
    alpha, sigma = denoiser.schedule(t).like(x0)
    errors = []
    for seed in range(8):
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            predicted = denoiser(alpha * x0 + sigma * eps, t).x0
        errors.append(127.5 * (predicted - x0))
    assert psnr(torch.cat(errors)).min() > 27


def test_four_faces_that_were_learned_are_four_different_faces(faces):
    originals = torch.from_numpy(faces.images.copy()).int()
    for one, other in itertools.combinations(originals, 2):
        assert psnr(one - other) < 20
