"""What is refused before a run begins, because its parts do not go together."""

import pytest

from kao.config import RunConfig
from kao.config.finetuning import FinetuneConfig
from kao.config.loss import LossConfig
from kao.config.sections import EMAConfig, TrainingConfig
from kao.diffusion import EDM, VE, Cosine, EDMWeight, Flow, Linear, MinSNR, TruncatedSNR, targets
from kao.errors import ConfigError
from kao.networks import UNetConfig
from kao.training import OptimizerConfig, Patches
from kao.training.optimizers import AdamW8bit


def refusal(**options) -> str:
    with pytest.raises(ConfigError) as caught:
        RunConfig(**options).check()
    return str(caught.value)


@pytest.mark.parametrize("target", [targets.eps, targets.v, targets.x0, targets.velocity])
def test_a_network_is_not_shown_noise_of_eighty_unscaled(target):
    assert "set input_scaling = true" in refusal(schedule=VE(), target=target)
    RunConfig(schedule=VE(), target=target, input_scaling=True).check()


def test_edm_scales_its_input_by_itself():
    config = RunConfig(schedule=VE(), target=EDM(sigma_data=0.4))
    config.check()
    assert config.build_denoiser("meta").sigma_data == 0.4


def test_input_scaling_is_for_pixels():
    assert RunConfig().build_denoiser("meta").sigma_data is None
    assert RunConfig(input_scaling=True).build_denoiser("meta").sigma_data == 0.5


@pytest.mark.parametrize("weight", [TruncatedSNR(), EDMWeight()])
@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_a_weight_that_bursts_near_pure_noise_is_refused(schedule, weight):
    told = refusal(schedule=schedule, target=targets.eps, loss=LossConfig(weight=weight))
    assert "near pure noise" in told and "take the v target" in told
    RunConfig(schedule=schedule, target=targets.v, loss=LossConfig(weight=weight)).check()


def test_a_floor_needs_a_target_that_tells_of_the_picture_near_pure_noise():
    floored, plain = (LossConfig(weight=MinSNR(floor=floor)) for floor in (0.1, 0.0))
    told = refusal(schedule=Linear(), target=targets.eps, loss=floored)
    assert "near pure noise" in told and "as min_snr with a floor of 0 does." in told
    same = LossConfig(weight=TruncatedSNR(0.1))  # at the noisy end
    assert refusal(schedule=Linear(), target=targets.eps, loss=same) == told
    little = LossConfig(weight=MinSNR(floor=0.003))
    for loss in (plain, little):
        RunConfig(schedule=Linear(), target=targets.eps, loss=loss).check()
    for target in (targets.v, targets.x0):
        RunConfig(schedule=Linear(), target=target, loss=floored).check()


def test_a_weight_is_held_against_what_the_network_of_a_base_says_itself():
    loss = LossConfig(weight=TruncatedSNR())
    chain = FinetuneConfig(schedule=Linear(), target=targets.eps)
    of_eps, of_v = (FinetuneConfig(target=target) for target in (targets.eps, targets.v))
    told = refusal(schedule=Linear(), target=targets.v, finetune=of_eps, loss=loss)
    assert "near pure noise" in told and "the base's own target" in told and '"plain"' in told
    RunConfig(schedule=Linear(), target=targets.eps, finetune=of_v, loss=loss).check()
    RunConfig(target=targets.v, finetune=chain, loss=LossConfig(weight=None)).check()


def test_published_pairs_of_target_and_weight_pass():
    RunConfig(schedule=VE(), target=EDM(), loss=LossConfig(weight=EDMWeight())).check()
    RunConfig(schedule=Flow(), target=targets.velocity, loss=LossConfig(weight=None)).check()
    RunConfig(schedule=Cosine(), target=targets.v, loss=LossConfig(weight=TruncatedSNR())).check()
    RunConfig(schedule=Linear(), target=targets.eps, loss=LossConfig(weight=None)).check()


def test_moments_in_eight_bits_are_not_sharded():
    told = refusal(
        optimizer=OptimizerConfig(method=AdamW8bit()), training=TrainingConfig(parallel="fsdp")
    )
    assert 'optimizer.method = "adamw8bit" keeps its moments whole' in told


def test_averages_that_are_shared_out_do_not_lie_on_the_cpu():
    parallel = {way: TrainingConfig(parallel=way) for way in ("ddp", "fsdp")}
    told = refusal(ema=EMAConfig(offload=True), training=parallel["fsdp"])
    assert "ema.offload = true" in told and "choose one of the two" in told
    RunConfig(ema=EMAConfig(offload=True), training=parallel["ddp"]).check()


def test_a_curriculum_must_fit_the_network():
    patches = TrainingConfig(curriculum=Patches(parts=(8,)))
    assert "multiple" in refusal(training=patches, network=UNetConfig(attention=()))
