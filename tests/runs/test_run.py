import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import kao
from kao.config import SamplingConfig
from kao.config.sampling import GuidanceConfig
from kao.diffusion import PNDM, Ancestral, Cosine, Flow, LogSNR
from kao.errors import CheckpointError, ConfigError
from kao.runs import Run, draw, with_sampling
from kao.runs.pictures import some_real
from kao.runs.run import load_worse


@pytest.fixture(scope="module")
def run(tiny_run):
    return Run.open(tiny_run)


@pytest.fixture(scope="module")
def denoiser(run):
    """A model that is sure of nothing: four steps leave it close to zero, where all is alike."""
    model = run.denoiser()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def config(run):
    """A way to draw in which every step takes noise."""
    return with_sampling(run.config, SamplingConfig(sampler=Ancestral(), steps=5))


def drawn(denoiser, config, indices, **more):
    return torch.cat(list(draw(denoiser, config, indices=indices, **more)))


def apart(a, b):
    """The largest difference, in levels of 255."""
    return (a.int() - b.int()).abs().max()


def test_a_picture_is_the_same_whatever_is_drawn_beside_it(denoiser, config):
    six = drawn(denoiser, config, range(6))
    assert (six.shape, six.dtype) == ((6, 3, 16, 16), torch.uint8)
    # Convolutions may add in another order for another size of batch, hence one level.
    assert apart(six, drawn(denoiser, config, range(6), batch=4)) <= 1
    assert apart(six, drawn(denoiser, config, range(6), batch=1)) <= 1
    assert apart(six[:3], drawn(denoiser, config, range(3))) <= 1
    assert apart(six[[5, 2]], drawn(denoiser, config, [5, 2])) <= 1


def test_pictures_and_seeds_differ(denoiser, config):
    two = drawn(denoiser, config, range(2))
    assert apart(two[0], two[1]) > 20
    assert apart(two, drawn(denoiser, config, range(2), seed=1)) > 20


def test_batches_come_as_they_are_drawn(denoiser, config):
    batches = draw(denoiser, config, indices=range(5), batch=2)
    assert [len(batch) for batch in batches] == [2, 2, 1]


def test_averaged_weights_are_not_those_being_trained(run):
    averaged, trained = run.denoiser(), run.denoiser(weights="model")
    there, here = averaged.state_dict(), trained.state_dict()
    assert list(there) == list(here)
    assert any(not torch.equal(there[name], here[name]) for name in here)


def test_a_model_that_is_loaded_is_ready_to_draw(run):
    model = run.denoiser()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_library_draws_what_the_run_says(run, tiny_run):
    by_path = kao.sample(tiny_run, n=3, seed=2)
    assert torch.equal(by_path, kao.sample(kao.Run.open(tiny_run), n=3, seed=2))
    assert torch.equal(by_path, drawn(run.denoiser(), run.config, range(3), seed=2))


def test_real_pictures_are_chosen_by_the_seed(run):
    five = some_real(run.config, n=5, seed=0)
    assert (five.shape, five.dtype) == ((5, 3, 16, 16), torch.uint8)
    assert torch.equal(five, some_real(run.config, n=5, seed=0))
    assert not torch.equal(five, some_real(run.config, n=5, seed=1))
    assert len(some_real(run.config, n=99, seed=0)) == 8


def test_a_way_to_draw_must_fit_the_schedule(run):
    chain = replace(run.config, schedule=Cosine(steps=50))
    assert with_sampling(chain, SamplingConfig(steps=50)).sampling.steps == 50
    with pytest.raises(ConfigError, match="steps = 51, but the schedule has 50 times"):
        with_sampling(chain, SamplingConfig(steps=51))


def test_a_variance_is_drawn_with_only_where_it_is_learned(run):
    sampling = SamplingConfig(sampler=Ancestral(variance="learned"), steps=2)
    with pytest.raises(
        ConfigError, match=r'^sampling\.sampler\.variance = "learned", but with loss'
    ):
        run.drawing(sampling)
    learning = replace(run.config, loss=replace(run.config.loss, bound=0.001))
    assert with_sampling(learning, sampling).sampling == sampling


def test_pndm_does_not_draw_on_steps_that_it_is_not_made_for(run):
    with pytest.raises(ConfigError, match=r'"pndm" is made for steps of equal size'):
        run.drawing(SamplingConfig(sampler=PNDM(), grid=LogSNR()))
    assert run.drawing(SamplingConfig(sampler=PNDM())).sampling.sampler == PNDM()


# --- guidance -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worse(run, tmp_path_factory):
    """The same run in a directory whose name is a number, with other weights of its own."""
    path = shutil.copytree(run.path, tmp_path_factory.mktemp("runs") / "7")
    for checkpoint in (path / "checkpoints").iterdir():
        # Those being trained stand for another model: four steps have moved them.
        kept = load_file(checkpoint / "model.safetensors")
        save_file({name: 2 * x for name, x in kept.items()}, checkpoint / "ema-0.999.safetensors")
        card = json.loads((checkpoint / "card.json").read_text())
        del card["files"]["ema-0.999.safetensors"]
        (checkpoint / "card.json").write_text(json.dumps(card))
    return Run.open(path)


def guiding(config, path, scale=3.0, **options):
    """A configuration that guides by the run or checkpoint at a path."""
    guidance = GuidanceConfig(worse=str(path), scale=scale, **options)
    return replace(config, sampling=replace(config.sampling, guidance=guidance))


def test_guidance_changes_the_pictures_and_so_does_each_option_of_it(denoiser, config, worse):
    ways = [
        config,
        guiding(config, worse.path),
        guiding(config, worse.path, 1.5),
        guiding(config, worse.path, interval=(0.5, 5.0)),
        guiding(config, worse.path, rescale=1.0),
    ]
    pictures = [drawn(denoiser, way, range(2)) for way in ways]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert apart(one, other) > 1


def test_a_run_and_its_newest_checkpoint_guide_alike(denoiser, config, worse):
    newest = worse.checkpoint()[0].path
    by_run = drawn(denoiser, guiding(config, worse.path), range(2))
    assert torch.equal(by_run, drawn(denoiser, guiding(config, newest), range(2)))


def test_a_run_whose_name_is_a_number_is_no_checkpoint(config, worse):
    assert worse.path.name.isdecimal()
    loaded = load_worse(guiding(config, worse.path), device=torch.device("cpu"))
    newest = worse.denoiser(device=torch.device("cpu")).state_dict()
    assert all(torch.equal(value, newest[name]) for name, value in loaded.state_dict().items())


def test_an_earlier_checkpoint_can_guide(config, worse):
    first = worse.path / "checkpoints" / "000000008"
    there = load_worse(guiding(config, first), device=torch.device("cpu")).state_dict()
    newest = worse.denoiser(device=torch.device("cpu")).state_dict()
    assert any(not torch.equal(there[name], newest[name]) for name in newest)


def test_what_is_loaded_already_is_not_loaded_again(denoiser, config, worse, monkeypatch):
    way = guiding(config, worse.path)
    loaded = load_worse(way, device=torch.device("cpu"))
    expected = drawn(denoiser, way, range(2))

    def never(*args, **more):
        raise AssertionError("loaded again")

    monkeypatch.setattr(Run, "denoiser", never)
    assert torch.equal(drawn(denoiser, way, range(2), worse=loaded), expected)


@pytest.mark.parametrize("place", ["gone", "gone/checkpoints/000000008", "."])
def test_a_worse_model_that_is_missing_is_found_before_drawing(place, run, denoiser, tmp_path):
    way = guiding(run.config, tmp_path / place)
    for attempt in (lambda: run.drawing(way.sampling), lambda: drawn(denoiser, way, [0])):
        with pytest.raises(CheckpointError, match=r"worse = .* is neither a run with a checkpoint"):
            attempt()


def test_a_run_without_a_checkpoint_cannot_guide(run, tmp_path):
    bare = shutil.copytree(run.path, tmp_path / "bare")
    shutil.rmtree(bare / "checkpoints")
    with pytest.raises(CheckpointError, match="is neither a run with a checkpoint nor one of its"):
        run.drawing(guiding(run.config, bare).sampling)


def test_a_worse_model_of_other_pictures_is_refused(config, worse):
    larger = replace(config, data=replace(config.data, size=32))
    with pytest.raises(ConfigError, match=r"data\.size = 16, and the model .* of 32: name one"):
        load_worse(guiding(larger, worse.path), device=torch.device("cpu"))


def test_a_worse_model_of_another_schedule_is_refused(config, worse):
    flow = replace(config, schedule=Flow())
    with pytest.raises(ConfigError, match=r"the schedule VPCosine\(.* should guide on Flow\("):
        load_worse(guiding(flow, worse.path / "checkpoints" / "000000008"), device="cpu")


# --- what is no run -----------------------------------------------------------------------------


def test_a_directory_that_is_missing_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"^There is no run directory .*gone: give"):
        Run.open(tmp_path / "gone")


def test_a_directory_without_a_configuration_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a run directory, since it has no run\.toml"):
        Run.open(tmp_path)


def test_a_configuration_that_was_edited_wrongly_is_found_by_its_line(tiny_run, tmp_path):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    file = run.path / "run.toml"
    text = file.read_text()
    line = text[: text.index("width = 8")].count("\n") + 1
    file.write_text(text.replace("width = 8", "widht = 8"))
    with pytest.raises(ConfigError, match=rf'"widht" in \[network\] of .*/run\.toml:{line} \(did'):
        _ = run.config


def test_a_configuration_that_is_no_text_is_said_to_be_unreadable(tiny_run, tmp_path):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    (run.path / "run.toml").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"run\.toml cannot be read"):
        _ = run.config


def test_a_run_without_a_checkpoint_cannot_draw(tiny_run, tmp_path):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"has no whole checkpoint yet: let `kao train` run"):
        run.denoiser()
    with pytest.raises(CheckpointError, match="has no whole checkpoint yet"):
        kao.sample(run)


def test_a_run_draws_with_the_newest_whole_checkpoint(tiny_run, tmp_path):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    newest, damages = run.checkpoint()
    assert (newest.images, damages) == (16, [])
    (newest.path / "model.safetensors").unlink()
    older, damages = run.checkpoint()
    assert older.images == 8
    assert [damage.endswith("model.safetensors is missing") for damage in damages] == [True]
    with pytest.warns(UserWarning, match="is missing: taking 000000008 instead"):
        run.denoiser()
