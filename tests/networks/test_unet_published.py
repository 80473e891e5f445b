"""Published U-Nets, as values of our options: parameters and operations as their papers say.

A network told classes has one row more than published, which stands for no class.
"""

from dataclasses import replace
from math import sqrt

import pytest
import torch

from kao.config import Request, RunConfig, dump
from kao.networks import Takes, UNetConfig
from kao.networks.cost import flops, parameters

IMAGENET = Takes(classes=1000)

DDPM = UNetConfig(resample="conv_right", norm_eps=1e-6)
IDDPM = UNetConfig(
    levels=(1, 2, 3, 4),
    blocks=3,
    attention=(16, 8),
    heads=4,
    level="film",
    embedding="adm",
)
ADM = UNetConfig(
    width=256,
    blocks=2,
    attention=(32, 16, 8),
    head_width=64,
    level="film",
    embedding="adm",
    resample="residual",
)
ADM_64 = replace(ADM, width=192, levels=(1, 2, 3, 4), blocks=3)
ADM_128 = replace(ADM, levels=(1, 1, 2, 3, 4), head_width=0, heads=4)
ADM_256 = replace(ADM, levels=(1, 1, 2, 2, 4, 4))
DDPMPP = UNetConfig(
    levels=(2, 2, 2),
    blocks=4,
    up_attention="last",
    resample="projected",
    skip_scale=sqrt(0.5),
    norm_eps=1e-6,
)
NCSNPP = replace(DDPMPP, resample_filter="fir", embedding="fourier", input_pyramid=True)


def built(config, size, *, outputs=3, takes=Takes()):
    with torch.device("meta"):
        return config.build(channels=3, size=size, outputs=outputs, takes=takes)


@pytest.mark.parametrize(
    ("config", "size", "count"),
    [
        pytest.param(UNetConfig(), 32, 35_746_307, id="our defaults"),
        # Ho et al. (2020), appendix B: "35.7 million" and "114 million".
        pytest.param(DDPM, 32, 35_746_307, id="CIFAR-10, 35.7 M"),
        pytest.param(
            replace(DDPM, levels=(1, 1, 2, 2, 4, 4), dropout=0.0),
            256,
            113_673_219,
            id="CelebA-HQ 256 and LSUN, 114 M",
        ),
    ],
)
def test_the_networks_of_ho_et_al(config, size, count):
    assert parameters(built(config, size)) == count


@pytest.mark.parametrize(
    ("config", "size", "count"),
    [
        # Nichol & Dhariwal (2021), sec. 6, "30M, 68M, 120M, and 270M"; CIFAR-10 by the released
        # file, cifar10_uncond_50M.
        pytest.param(replace(IDDPM, width=64), 64, 30_303_494, id="ImageNet-64, 30 M"),
        pytest.param(replace(IDDPM, width=96), 64, 68_126_598, id="ImageNet-64, 68 M"),
        pytest.param(IDDPM, 64, 121_063_942, id="ImageNet-64, 120 M"),
        pytest.param(replace(IDDPM, width=192), 64, 272_281_350, id="ImageNet-64, 270 M"),
        pytest.param(
            replace(IDDPM, levels=(1, 2, 2, 2), dropout=0.3), 32, 52_546_438, id="CIFAR-10, 50 M"
        ),
    ],
)
def test_the_networks_of_nichol_and_dhariwal_with_learned_variance(config, size, count):
    assert parameters(built(config, size, outputs=6)) == count


@pytest.mark.parametrize(
    ("config", "size", "plain", "with_classes"),
    [
        # Dhariwal & Nichol (2021), the table of hyperparameters: 296 M, 422 M and 554 M.
        pytest.param(ADM_64, 64, 295_136_454, 295_904_454, id="ImageNet-64, 296 M"),
        pytest.param(ADM_128, 128, 420_505_606, 421_529_606, id="ImageNet-128, 422 M"),
        pytest.param(ADM_256, 256, 552_814_086, 553_838_086, id="ImageNet-256, 554 M"),
    ],
)
def test_the_networks_of_dhariwal_and_nichol(config, size, plain, with_classes):
    assert parameters(built(config, size, outputs=6)) == plain
    no_class = 4 * config.width
    told = parameters(built(config, size, outputs=6, takes=IMAGENET))
    assert told == with_classes + no_class


@pytest.mark.parametrize(
    ("config", "size", "billions"),
    [
        # A multiply-add counts one in these figures: 110 of Karras et al. (2024a), 1120 of Peebles
        # & Xie (2023).
        pytest.param(ADM_64, 64, 110, id="ImageNet-64, 110"),
        pytest.param(ADM_256, 256, 1120, id="ImageNet-256, 1120"),
    ],
)
def test_operations_of_dhariwal_and_nichol_are_those_that_later_papers_counted(
    config, size, billions
):
    network = built(config, size, outputs=6, takes=IMAGENET)
    assert round(flops(network, (3, size, size)) / 2 / 1e9) == billions


@pytest.mark.parametrize(
    ("config", "size", "count"),
    [
        # Karras et al. (2022), appendix F.1, without augmentation: 55.7 M and 56.4 M for CIFAR-10,
        # 61.8 M and 62.8 M for FFHQ and AFHQ.
        pytest.param(DDPMPP, 32, 55_732_739, id="DDPM++, 55.7 M"),
        pytest.param(NCSNPP, 32, 56_395_523, id="NCSN++, 56.4 M"),
        pytest.param(replace(DDPMPP, levels=(1, 2, 2, 2)), 64, 61_804_419, id="DDPM++, 61.8 M"),
        pytest.param(replace(NCSNPP, levels=(1, 2, 2, 2)), 64, 62_758_787, id="NCSN++, 62.8 M"),
    ],
)
def test_the_networks_of_song_et_al_as_karras_et_al_train_them(config, size, count):
    assert parameters(built(config, size)) == count


@pytest.mark.parametrize(
    ("recipe", "network"),
    [
        ("ddpm-cifar10-32", DDPM),
        ("ddpm-celebahq-256", replace(DDPM, levels=(1, 1, 2, 2, 4, 4), dropout=0.0)),
        ("iddpm-64", IDDPM),
        ("adm-64", ADM_64),
        ("ddpmpp-32", DDPMPP),
        ("ncsnpp-32", NCSNPP),
    ],
)
def test_a_recipe_of_a_published_network_has_that_network(recipe, network):
    config = Request.of(recipe).over(dump(RunConfig()))
    # What has no weights is the recipe's own.
    trained = replace(config.network, dropout=network.dropout, label_scale=network.label_scale)
    assert trained == network


def test_the_anime_64_recipe_is_that_of_cifar_10_with_narrower_levels_and_28_million_parameters():
    config = Request.of("anime-64").over(dump(RunConfig()))
    assert config.data.size == 64
    assert config.network == replace(UNetConfig(), levels=(1, 1, 2, 2))
    assert parameters(config.build_denoiser("meta").network) == 28_482_307
