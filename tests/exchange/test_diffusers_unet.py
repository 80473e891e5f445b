"""UNet2DModel as our U-Net: the same numbers, for published configurations and their options."""

import json
import re

import pytest
import safetensors.torch
import torch
from pipelines import COUNTS, UNETS, filled, shrunk

from kao.diffusion import DDIM, Clip, SeededNoise, grids, trajectory
from kao.errors import CheckpointError, ConfigError
from kao.exchange import import_model
from kao.exchange.diffusers_config import read_config, write_config
from kao.exchange.diffusers_names import renewed, rules
from kao.exchange.renaming import to_ours, to_theirs
from kao.networks import Conditions, Takes, UNetConfig
from kao.networks.cost import parameters

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

TIMES = (0, 7, 500, 999)
SMALL = {
    **UNETS["google/ddpm-cifar10-32"],
    "block_out_channels": [16, 32],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 16,
}
RESIDUAL = {
    "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "block_out_channels": [16, 16, 32],
}
OPTIONS = {
    "adm embedding": {"freq_shift": 0, "flip_sin_to_cos": True},
    "heads by width": {"attention_head_dim": 8},
    "padding everywhere": {"downsample_padding": 1},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8},
    "no attention in the middle": {"add_attention": False},
    "residual resampling": RESIDUAL,
    "a learned variance": {"out_channels": 6},
    "classes": {"num_class_embeds": 3},
    "one level": {
        "block_out_channels": [16],
        "down_block_types": ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"],
    },
}


def theirs_of(config, seed=0):
    return filled(diffusers.UNet2DModel.from_config(config), seed)


def saved(network, folder, scheduler=None):
    variance = "learned_range" if network.config.out_channels == 6 else "fixed_large"
    scheduler = scheduler or diffusers.DDPMScheduler(variance_type=variance)
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(folder)
    return folder


@torch.no_grad()
def difference(theirs, ours):
    """The largest over several times, in float32; the outputs are of order 1."""
    size, classes = theirs.config.sample_size, theirs.config.num_class_embeds
    x = torch.randn(len(TIMES), 3, size, size, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 2, 1, 0]) if classes else None
    expected = theirs(x, torch.tensor(TIMES), class_labels=label).sample
    assert (expected.std(dim=(1, 2, 3)) > 0.05).all() and (expected.std() < 5)
    met = ours(x, torch.tensor(TIMES, dtype=torch.float32), Conditions(label=label))
    return (met - expected).abs().max().item()


@pytest.mark.parametrize("name", UNETS)
def test_published_configurations_have_the_published_number_of_parameters(name):
    described = read_config(UNETS[name])
    with torch.device("meta"):
        network = described.network.build(channels=3, size=described.size)
    assert parameters(network) == COUNTS[name]


@pytest.mark.parametrize("name", UNETS)
def test_published_configurations_say_the_same_as_diffusers(name, tmp_path):
    theirs = theirs_of(shrunk(UNETS[name]))
    model = import_model(str(saved(theirs, tmp_path)))
    assert (model.size, model.channels, model.learned_variance) == (32, 3, False)
    assert difference(theirs, model.build()) < 1e-5


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_that_is_read_says_the_same_as_diffusers(option, tmp_path):
    theirs = theirs_of({**SMALL, **OPTIONS[option]})
    model = import_model(str(saved(theirs, tmp_path)))
    assert model.learned_variance is (option == "a learned variance")
    assert difference(theirs, model.build()) < 1e-5


@pytest.mark.parametrize("option", OPTIONS)
def test_a_configuration_and_its_weights_come_back_from_ours_as_they_went_in(option):
    config = {**SMALL, **OPTIONS[option]}
    read = read_config(config)
    network, classes = read.network, read.classes
    written = write_config(
        network, channels=3, outputs=read.outputs, size=read.size, classes=classes
    )
    again = read_config(written)
    assert (again.network, again.outputs, again.classes) == (network, read.outputs, classes)
    theirs = theirs_of(written)
    state, named = theirs.state_dict(), rules(network, size=read.size, classes=classes)
    back = to_theirs(named, to_ours(named, state, origin="here"))
    assert state.keys() == back.keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in state.items())


def test_weights_of_old_names_in_a_pickle_beside_all_else_are_read(tmp_path):
    theirs = theirs_of(SMALL)
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {
        re.sub("|".join(new), lambda found: new[found[0]], name): tensor
        for name, tensor in theirs.state_dict().items()
    }
    assert "mid_block.attentions.0.proj_attn.weight" in old
    assert renewed(old).keys() == theirs.state_dict().keys()
    torch.save(old, tmp_path / "diffusion_pytorch_model.bin")
    config = {"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", **SMALL}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    model = import_model(str(tmp_path))
    assert not model.notes
    assert difference(theirs, model.build()) < 1e-5


def test_weights_of_half_precision_are_named_by_their_variant(tmp_path):
    theirs = theirs_of(SMALL).half()
    theirs.save_pretrained(tmp_path, variant="fp16")
    with pytest.raises(CheckpointError, match=r"\.fp16\.safetensors: .* --weights fp16\."):
        import_model(str(tmp_path))
    model = import_model(str(tmp_path), weights="fp16")
    assert {tensor.dtype for tensor in model.weights.values()} == {torch.float32}
    assert difference(theirs.float(), model.build()) < 1e-5


def test_plain_weights_are_named_where_a_variant_was_asked_for(tmp_path):
    theirs_of(SMALL).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(CheckpointError, match=r"model\.bin: .* leave --weights out"):
        import_model(str(tmp_path), weights="fp16")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_weights_in_several_files_are_joined(variant, tmp_path):
    theirs = theirs_of(SMALL)
    theirs.save_pretrained(tmp_path, max_shard_size="100KB", variant=variant)
    shards = sorted(tmp_path.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    model = import_model(str(tmp_path), weights=variant or "auto")
    assert difference(theirs, model.build()) < 1e-5
    if variant:
        with pytest.raises(CheckpointError, match="ask for --weights fp16"):
            import_model(str(tmp_path))
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=f"{shards[1].name} is missing, and .*index"):
        import_model(str(tmp_path), weights=variant or "auto")


@pytest.mark.parametrize(
    "places", [None, [], {"a": 3}, {"a": "../other.safetensors"}, {"a": "/other.safetensors"}]
)
def test_an_index_that_names_no_files_beside_it_is_refused(places, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel", **SMALL}))
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match="does not say which file beside it"):
        import_model(str(tmp_path))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), r"embed\.0\.bias of .* holds numbers that are not finite"),
        (float("inf"), r"embed\.0\.bias of .* holds numbers that are not finite"),
        (None, r"embed\.0\.bias of .* holds int8 numbers"),
    ],
)
def test_weights_that_are_no_finite_floats_are_refused_by_name(value, words, tmp_path):
    theirs_of(SMALL).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state, name = safetensors.torch.load_file(file), "time_embedding.linear_1.bias"
    if value is None:
        state[name] = state[name].to(torch.int8)
    else:
        state[name][3] = value
    safetensors.torch.save_file(state, file)
    with pytest.raises(CheckpointError, match=words):
        import_model(str(tmp_path))


@torch.no_grad()
@pytest.mark.parametrize("steps", [3, 5])
def test_an_imported_pipeline_draws_the_same_picture_from_the_same_noise(steps, tmp_path):
    theirs = theirs_of(SMALL)
    theirs.conv_out.weight.mul_(0.3)  # each step makes more of what rounding left of the last
    model = import_model(str(saved(theirs, tmp_path)))
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    start = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    expected = start
    for t in scheduler.timesteps:
        output = theirs(expected, t).sample
        expected = scheduler.step(output, t, expected, eta=0.0).prev_sample
    denoiser = model.denoiser()
    times = grids.leading(denoiser.schedule, steps)
    *_, ours = trajectory(Clip()(denoiser), DDIM(), start, times, noise=SeededNoise([0]))
    assert model.sampling.threshold == Clip()
    assert (ours - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mid_block_type": None}, "mid_block_type = None"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type = 'fourier'"),
        ({"center_input_sample": True}, "center_input_sample = True"),
        ({"act_fn": "gelu"}, "act_fn = 'gelu'"),
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep'"),
        ({"mid_block_scale_factor": 1.4}, "mid_block_scale_factor = 1.4"),
        ({"time_embedding_dim": 32}, "time_embedding_dim = 32"),
        ({"block_out_channels": [16, 24]}, r"block_out_channels = \[16, 24\]"),
        ({"out_channels": 4}, "out_channels = 4"),
        ({"norm_num_groups": 16}, "norm_num_groups = 16"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "'SkipDownBlock2D'"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "up_block_types = "),
        ({"up_block_types": ["UpBlock2D"]}, "up_block_types = '1 of them'"),
        ({"upsample_type": "resnet"}, "down_block_types = .* sizes that change in one way"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups = None"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift = 'spatial'"),
        ({"attention_head_dim": 5}, "head_width = 5"),
        ({"sample_size": [16, 24]}, r"sample_size = \[16, 24\]"),
        ({"sample_size": None}, "give size=PIXELS"),
        ({"spectral": 2}, "spectral = 2 is no option"),
    ],
)
def test_what_our_u_net_cannot_express_is_refused_by_its_key(change, words):
    with pytest.raises(ConfigError, match=words):
        read_config({**SMALL, **change})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_out_channels", None),
        ("block_out_channels", []),
        ("block_out_channels", [0, 32]),
        ("block_out_channels", "64"),
        ("down_block_types", None),
        ("layers_per_block", "2"),
        ("dropout", "x"),
        ("norm_eps", None),
        ("num_class_embeds", "a"),
        ("in_channels", "3"),
        ("sample_size", 0),
        ("add_attention", "yes"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_file_and_key(key, value):
    words = re.escape(f"{key} = {value!r} in config.json is damaged or foreign: expected ")
    with pytest.raises(ConfigError, match=words):
        read_config({**SMALL, key: value})


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ({"num_train_timesteps": 1e3}, "num_train_timesteps = 1000.0; expected a whole number"),
        ({"num_train_timesteps": "a"}, "num_train_timesteps = 'a'; expected a whole number"),
        ({"beta_schedule": 3}, "beta_schedule = 3; expected linear or "),
        ({"prediction_type": "v"}, "prediction_type = 'v'; expected epsilon or "),
    ],
)
def test_a_fact_of_another_kind_is_refused(fact, words, tmp_path):
    theirs_of(SMALL).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=words):
        import_model(str(tmp_path), facts=fact)


@pytest.mark.parametrize(
    "network",
    [
        UNetConfig(stem=2),
        UNetConfig(qk_norm=True),
        UNetConfig(up_attention="last"),
        UNetConfig(skip_scale=0.5),
        UNetConfig(input_pyramid=True),
        UNetConfig(embedding="fourier"),
        UNetConfig(resample="projected"),
        UNetConfig(width=32),
        UNetConfig(heads=4, levels=(1, 2, 4, 4)),
    ],
    ids=str,
)
def test_what_unet2dmodel_cannot_express_is_refused_by_its_key(network):
    with pytest.raises(ConfigError, match=r"^diffusers' UNet2DModel has no place for network\."):
        write_config(network, channels=3, outputs=3, size=32)


def test_a_size_that_is_left_out_can_be_said(tmp_path):
    theirs = theirs_of({**SMALL, "sample_size": None})
    saved(theirs, tmp_path)
    with pytest.raises(ConfigError, match="sample_size is left out"):
        import_model(str(tmp_path))
    assert import_model(str(tmp_path), facts={"size": 16}).size == 16
    with pytest.raises(ConfigError, match=r"size = 1\.5"):
        import_model(str(tmp_path), facts={"size": 1.5})


def test_a_scheduler_and_outputs_that_disagree_on_the_variance_are_refused(tmp_path):
    scheduler = diffusers.DDPMScheduler(variance_type="fixed_small")
    saved(theirs_of({**SMALL, "out_channels": 6}), tmp_path, scheduler)
    with pytest.raises(ConfigError, match="out_channels = 6 does not go with"):
        import_model(str(tmp_path))


def test_without_a_scheduler_ddpm_is_assumed_and_said(tmp_path):
    theirs_of(SMALL).save_pretrained(tmp_path)
    model = import_model(str(tmp_path))
    assert len(model.notes) == 1 and "beta_schedule, prediction_type" in model.notes[0]
    told = import_model(
        str(tmp_path),
        facts={
            "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction",
            "num_train_timesteps": 500,
        },
    )
    assert told.schedule.build().t_max == 500 and not told.notes
    assert type(told.schedule) is not type(model.schedule) and told.target is not model.target


def test_what_the_scheduler_tells_cannot_be_said(tmp_path):
    saved(theirs_of(SMALL), tmp_path)
    with pytest.raises(ConfigError, match=r"whose scheduler_config\.json tells it"):
        import_model(str(tmp_path), facts={"prediction_type": "sample"})


def test_a_network_of_channels_without_colour_is_no_run_but_draws(tmp_path):
    theirs = theirs_of({**SMALL, "in_channels": 1, "out_channels": 1})
    model = import_model(str(saved(theirs, tmp_path)))
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert model.denoiser()(x, torch.tensor(3.0, dtype=torch.float64)).x0.shape == x.shape
    with pytest.raises(ConfigError, match="draws 1 channels"):
        model.config()


def test_classes_that_were_never_left_out_are_nothing_to_their_network_at_first(tmp_path):
    model = import_model(str(saved(theirs_of({**SMALL, "num_class_embeds": 3}), tmp_path)))
    table = model.weights["classes.weight"]
    assert model.classes == ("0", "1", "2") and not table[-1].any() and table[:-1].all()
    network = model.network.build(channels=3, size=16, takes=Takes(classes=3))
    assert network.state_dict().keys() == model.weights.keys()
