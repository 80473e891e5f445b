import pytest
import torch

import kao
from kao.config import Request, RunConfig, dump, load_recipe, recipe_names
from kao.diffusion import Cosine, Flow
from kao.errors import ConfigError
from kao.networks.cost import parameters


def whole(recipe, *overrides):
    return Request.of(recipe, overrides).over(dump(RunConfig()))


# --- ours ---------------------------------------------------------------------------------------


def test_there_are_recipes():
    assert {"faces-32", "faces-64", "toy-32", "anime-64", "afhq-36"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fits_together_and_can_be_built(name):
    config = whole(name)
    config.check()
    assert config != RunConfig()
    assert parameters(config.build_denoiser("meta")) > 900_000


SHRUNK = (
    "training.batch=2",
    "training.precision=fp32",
    "hooks.pictures=2",
    "evaluation.every=0",
    "sampling.steps=2",
    "tracking.tensorboard=false",
)

SMALL_NETWORK = {
    "unet": ("network.width=8", "network.blocks=1", "network.head_width=0"),
    "linear_unet": ("network.width=8", "network.blocks=1"),
    "dit": ("network.width=16", "network.depth=1", "network.heads=2"),
    "edm2": ("network.width=8", "network.blocks=1", "network.head_width=8"),
}
"""What makes a network of each kind small."""

SMALL_PICTURES = ("data.size=64", "network.attention=[]")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_saves_loads_and_draws(name, tiny_run, tmp_path):
    if "finetune" in load_recipe(name):  # which the base's network goes with
        run = kao.finetune(
            tiny_run,
            "toy:8",
            run=tmp_path / "run",
            recipe=name,
            length="2 steps",
            overrides=SHRUNK,
        )
        _draws(run, size=16)
        return
    kind = dump(whole(name))["network"]["kind"]
    small = (*SHRUNK, *SMALL_NETWORK[kind])
    if kind == "unet" and whole(name).data.size > 64:
        small = (*small, *SMALL_PICTURES)
    run = kao.train("toy:8", run=tmp_path / "run", recipe=name, length="2 steps", overrides=small)
    _draws(run, size=whole(name, *small).data.size)


def _draws(run, *, size):
    """Two steps of two pictures were saved, and draw the same again from the disk."""
    assert run.checkpoint()[0].images == 4
    assert run.denoiser(weights="model").network.conv_out.weight.any()  # zero at the start
    drawn = kao.sample(run, n=2, seed=1)
    assert (drawn.shape, drawn.dtype) == ((2, 3, size, size), torch.uint8)
    assert torch.equal(drawn, kao.sample(run.path, n=2, seed=1))


def test_a_recipe_for_fine_tuning_is_refused_without_a_base(tmp_path):
    with pytest.raises(
        ConfigError, match=r"anime-from-faces sets finetune\.train, .* kao finetune"
    ):
        kao.train("toy:8", run=tmp_path / "run", recipe="anime-from-faces", length="1 step")


def test_the_configuration_of_a_run_that_began_with_noise_is_a_recipe(tiny_run, tmp_path):
    file = tmp_path / "again.toml"
    file.write_text((tiny_run / "run.toml").read_text())
    overrides = ("evaluation.every=0",)
    run = kao.train(
        "toy:8", run=tmp_path / "run", recipe=str(file), length="1 step", overrides=overrides
    )
    assert run.config.network == kao.Run.open(tiny_run).config.network


def test_an_unknown_recipe_is_told_the_near_miss_and_all_names():
    with pytest.raises(ConfigError) as caught:
        load_recipe("face-32")
    assert str(caught.value).startswith(
        'unknown recipe "face-32" (did you mean "faces-32"?); there'
    )
    assert all(name in str(caught.value) for name in recipe_names())


# --- a user's -----------------------------------------------------------------------------------


def test_a_recipe_may_be_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('length = "7 steps"\n[schedule]\nkind = "cosine"\nsteps = 50\n')
    config = whole(str(file))
    assert (config.length, config.schedule) == ("7 steps", Cosine(steps=50))


def test_overrides_stand_over_the_recipe_and_flags_over_them():
    request = Request.of("faces-32", ["data.size=16", "ema.decay=0.5"], {"data": {"size": 64}})
    config = request.over(dump(RunConfig()))
    assert (config.data.size, config.ema.decay, config.network.width) == (64, 0.5, 48)


def test_a_recipe_changes_what_it_extends(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('extends = "faces-32"\nschedule = "flow"\n[network]\nwidth = 16\n')
    mine, parent = whole(str(file)), whole("faces-32")
    assert mine.schedule == Flow()
    assert mine.network.width == 16
    assert mine.network.attention == parent.network.attention
    assert mine.optimizer == parent.optimizer


def test_a_recipe_extends_its_neighbour_wherever_it_is_called_from(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "base.toml").write_text('length = "7 steps"\n')
    (tmp_path / "recipes" / "mine.toml").write_text('extends = "base.toml"\nseed = 3\n')
    monkeypatch.chdir(tmp_path)
    assert load_recipe("recipes/mine.toml") == {"length": "7 steps", "seed": 3}


def test_a_recipe_that_extends_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "./a.toml"')
    with pytest.raises(ConfigError, match=r"extends itself \(a\.toml -> b\.toml -> a\.toml\)"):
        load_recipe("a.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[network]\nkind = "unet"\nwidht = 9\n', 'unknown key "widht" in [network] of my.toml:3'),
        ('# one\n[training]\nbatch = "x"\n', "training.batch = 'x' in my.toml:3; expected a whole"),
        ('extends = "faces-23"', 'unknown recipe "faces-23" (did you mean "faces-'),
        ("extends = 3", "extends = 3 in my.toml; expected one recipe's name."),
        ('extends = "gone.toml"', "the recipe gone.toml cannot be read ("),
        ("network: wide", "my.toml is not TOML:"),
    ],
)
def test_a_mistake_in_a_recipe_is_found_in_its_file(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe("my.toml")
    assert words in str(caught.value)


def test_a_mistake_in_a_recipe_is_not_laid_at_the_door_of_one_that_extends_it(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.toml").write_text("\n\nsede = 3\n")
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\nseed = 3\n')
    with pytest.raises(ConfigError, match=r"in the top level of base\.toml:3"):
        load_recipe("mine.toml")


def test_what_is_no_text_is_no_recipe(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b"length = '\xff'")
    with pytest.raises(ConfigError, match=r"mine\.toml cannot be read \(.*utf-8"):
        load_recipe(str(file))


def test_an_option_waits_for_the_component_that_has_it():
    # The default sampler has no variance; that of this recipe has.
    config = whole("anime-64", "sampling.sampler.variance=beta_tilde")
    assert config.sampling.sampler.variance == "beta_tilde"
