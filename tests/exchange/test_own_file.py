"""A file of weights that says what it is, and is read back to the bit."""

from dataclasses import replace

import pytest
import torch
from giving import config_of, drawn, trained
from safetensors.torch import load_file, save_file

from kao.config.conditioning import ConditionsConfig
from kao.config.loss import LossConfig
from kao.data.augment import AugmentConfig
from kao.diffusion import EDM, VE, Cosine, VPCosine, targets
from kao.errors import CheckpointError
from kao.exchange import import_model
from kao.exchange.own import FILE, write_own

CLASSES = ConditionsConfig(classes=True, names=("cat", "dog"))


def of_many_tellings():
    config = config_of(VE(), EDM(), loss=LossConfig(bound=0.001), conditions=CLASSES)
    return replace(config, data=replace(config.data, augment=AugmentConfig(edm=0.12)))


@pytest.mark.parametrize(
    "config",
    [
        config_of(VPCosine(), targets.v),
        config_of(Cosine(steps=50), targets.eps, input_scaling=True),
        of_many_tellings(),
    ],
    ids=["plain", "scaled", "told"],
)
def test_a_network_is_read_back_to_the_bit_with_its_configuration(config, tmp_path):
    given = trained(config)
    write_own(given, tmp_path / "new" / "mine.safetensors")
    model = import_model(str(tmp_path / "new" / "mine.safetensors"))
    assert model.config() == given.config
    weights = model.build().state_dict()
    assert weights.keys() == given.weights.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in given.weights.items())
    assert torch.equal(drawn(replace(given, denoiser=model.denoiser())), drawn(given))


def test_a_folder_that_holds_it_is_one_of_ours(tmp_path):
    given = trained(config_of(VPCosine(), targets.v))
    write_own(given, tmp_path / FILE)
    assert import_model(str(tmp_path)).config() == given.config


def test_a_file_of_a_later_kao_is_refused(tmp_path):
    file = tmp_path / "mine.safetensors"
    write_own(trained(config_of(VPCosine(), targets.v)), file)
    save_file(load_file(file), file, metadata={"format": "pt", "kao": "2"})
    with pytest.raises(CheckpointError, match="version 2"):
        import_model(str(file))
