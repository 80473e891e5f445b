"""What only a GPU can show.  `pytest -m gpu`."""

from pathlib import Path

import pytest
import torch

import kao
from kao.diffusion import DDIM, SAMPLERS, Denoiser, VPCosine, grids, sample, seeds_of, targets
from kao.networks import UNetConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU"),
]


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    network = UNetConfig(width=16, levels=(1, 2), attention=(8,), dropout=0.0)
    model = Denoiser(network.build(channels=3, size=16), VPCosine().build(), targets.v)
    torch.nn.init.normal_(model.network.conv_out.weight, std=0.02)
    return model.eval()


@pytest.mark.parametrize("name", SAMPLERS)
def test_levels_on_the_cpu_move_images_on_the_gpu(denoiser, name):
    times = grids.uniform(denoiser.schedule, 5)
    drawn = [
        sample(
            denoiser.to(place),
            SAMPLERS[name](),
            times,
            (3, 16, 16),
            seeds=seeds_of(0, range(4)),
            device=place,
        ).cpu()
        for place in ("cpu", "cuda")
    ]
    torch.testing.assert_close(drawn[0], drawn[1], atol=2e-2, rtol=0)


def test_bf16_predicts_nearly_what_float32_does(denoiser):
    denoiser = denoiser.cuda()
    x = torch.randn(8, 3, 16, 16, device="cuda")
    t = torch.full((8,), 0.5, dtype=torch.float64)
    exact = denoiser(x, t).x0
    with torch.autocast("cuda", torch.bfloat16):
        rough = denoiser(x, t).x0
    assert (exact - rough).abs().mean() < 0.02 * exact.abs().mean()


def test_a_run_trains_and_draws(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("KAO_CACHE", str(tmp_path / "cache"))
    run = kao.train("toy:32", run=tmp_path / "run", recipe="toy-32", length="640 images")
    assert run.checkpoint()[0].images >= 640
    assert kao.sample(run, n=2).shape == (2, 3, 32, 32)
    assert DDIM() == run.config.sampling.sampler
