import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from kao.config import Request, RunConfig, dump
from kao.errors import ConfigError
from kao.networks import NETWORKS
from kao.processes import Processes
from kao.runs import sizing
from kao.runs.ask import Ask
from kao.runs.planning import configure, plan, waiting
from kao.runs.sizing import SIBLINGS, default_recipe, fitted, regularised, resolve, sized
from kao.runs.timetable import Costs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def recipe(name="faces-32", *words, **flags):
    return Request.of(name, words, flags).over(dump(RunConfig()))


@pytest.fixture
def probed(monkeypatch):
    """The probe measures what the test says: seconds an image."""

    def set_(image, **hooks):
        monkeypatch.setattr(sizing, "probe", lambda *a, **k: Costs(image, hooks))

    return set_


def small(tiny, *words, length):
    return recipe("toy-32", *tiny, "data.size=8", *words, length=length)


# --- without a probe ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "size", "name"),
    [
        (CPU, None, "faces-32"),
        (CUDA, None, "faces-64"),
        (CUDA, 32, "faces-32"),
        (CPU, 64, "faces-64"),
    ],
)
def test_the_recipe_follows_from_size_and_machine(device, size, name):
    assert default_recipe(device, {"data": {"size": size}} if size else {}) == name


@pytest.mark.parametrize(("kind", "name"), SIBLINGS.items())
def test_another_kind_of_network_begins_with_its_own_recipe_and_says_so(kind, name, tmp_path):
    run = tmp_path / "run"
    for word in (f"network.kind={kind}", f"network={kind}"):
        ask = Ask(run, source="toy:8", overrides=[word], flags={"length": "20k images"})
        assert default_recipe(CUDA, ask.request(None).table) == name
        said = f'network.kind = "{kind}" begins with {name}'
        assert any(said in note for note in configure(ask, CPU).notes)
    config = plan(ask, CPU)
    assert config.network == replace(recipe(name).network, dropout=0.1)  # since 8 are few
    assert config.optimizer.method == recipe(name).optimizer.method
    named = Ask(run, source="toy:8", recipe="faces-32", overrides=["seed=1"])
    assert configure(named, CPU).notes == configure(Ask(run, source="toy:8"), CPU).notes == []


def test_every_kind_but_the_u_net_has_a_recipe_to_begin_with():
    assert set(SIBLINGS) == set(NETWORKS) - {"unet"}
    assert all(dump(recipe(name))["network"]["kind"] == kind for kind, name in SIBLINGS.items())


def test_attention_of_another_kind_goes_where_its_size_has_small_maps():
    config = fitted(recipe("edm2-32", "data.size=64"), {}, CPU)
    assert config.network.attention == (16, 8)
    config.network.check(64)


@pytest.mark.parametrize(
    ("device", "name", "stem"),
    [(CPU, "faces-32", 2), (CUDA, "faces-32", 2), (CPU, "faces-64", 4), (CUDA, "faces-64", 2)],
)
def test_the_stem_follows_from_size_and_machine(device, name, stem):
    config = fitted(recipe(name), {}, device)
    assert config.network.stem == stem
    config.network.check(config.data.size)


def test_a_stem_that_was_asked_for_stays():
    asked = {"network": {"stem": 4}}
    assert fitted(recipe("faces-64"), asked, CUDA).network.stem == 4


def test_few_pictures_bring_dropout():
    assert regularised(recipe(), {}, 4_999).network.dropout == 0.1
    assert regularised(recipe(), {}, 5_000).network.dropout == 0
    assert regularised(recipe(), {"network": {"dropout": 0.0}}, 10).network.dropout == 0


def test_a_length_in_images_is_sized_without_a_probe():
    wide = sized(recipe(length="1.6M images"), {}, CPU)
    assert wide.network.width > recipe().network.width
    assert wide.training.batch > recipe().training.batch


def test_a_length_in_minutes_waits_for_the_probe():
    assert sized(recipe(length="60 minutes"), {}, CPU) == recipe(length="60 minutes")


def test_a_dry_run_shows_what_is_chosen_for_a_length_in_images(tmp_path):
    def width(name):
        ask = Ask(tmp_path / "run", source="toy:8", recipe=name, flags={"length": "1.6M images"})
        return plan(ask, CPU).network.width

    assert width(None) > width("faces-32") == recipe().network.width


@pytest.mark.parametrize(
    ("name", "length", "keys"),
    [
        (None, "60 minutes", ["network.width", "network.groups", "optimizer.rate"]),
        (None, "100k images", []),
        ("faces-32", "60 minutes", []),
    ],
)
def test_a_dry_run_says_what_waits_for_the_probe(tmp_path, name, length, keys):
    words = ("training.batch=8", "hooks.log=100")
    ask = Ask(
        tmp_path / "r", source="toy:8", recipe=name, overrides=words, flags={"length": length}
    )
    assert waiting(ask, plan(ask, CPU)) == keys


def test_a_run_that_began_waits_for_nothing(tmp_path, tiny_run):
    ask = Ask(tiny_run, flags={"length": "60 minutes"})
    assert waiting(ask, recipe(length="60 minutes")) == []


def test_a_network_that_memory_does_not_hold_is_not_chosen(monkeypatch):
    config, least = recipe(length="1.6M images"), recipe().network.width
    widths = []
    for room in (2**40, 5 * 2**30, 0):
        monkeypatch.setattr(sizing, "free_memory", lambda on, room=room: room)
        widths.append(sized(config, {}, CPU).network.width)
    assert widths[0] > widths[1] > widths[2] == least


# --- with one -----------------------------------------------------------------------------------


def test_a_named_recipe_stays_as_it_is(tiny, tiny_set, probed):
    probed(1e-4)
    config = small(tiny, length="60 minutes")
    resolved = resolve(config, tiny_set, CPU)
    assert resolved.config.network == config.network
    assert resolved.config.training == config.training
    assert resolved.config.optimizer == config.optimizer
    assert not any(note.startswith("Chosen") for note in resolved.notes)


def test_a_fast_machine_gets_a_wider_network_and_says_so(tiny_set, probed):
    config = recipe("faces-32", "training.precision=fp32", length="60 minutes")
    chosen = {}
    for speed in (160, 16_000):
        probed(1 / speed, samples=1.0)
        resolved = resolve(config, tiny_set, CPU, asked={})
        chosen[speed] = resolved.config.network.width, resolved.config.training.batch
        told = resolved.notes[0]
        assert told.startswith("Chosen for 60 minutes on this machine: ")
        assert f"network.width = {chosen[speed][0]}" in told
    (slow, few), (fast, many) = chosen.values()
    assert fast > slow > config.network.width
    assert many >= few > config.training.batch


def test_what_was_asked_for_stays_whatever_the_machine(tiny_set, probed):
    probed(1e-4)
    config = recipe("faces-32", "network.width=32", "training.batch=16", length="60 minutes")
    asked = {"network": {"width": 32}, "training": {"batch": 16}, "optimizer": {"rate": 1e-3}}
    resolved = resolve(config, tiny_set, CPU, asked=asked)
    assert (resolved.config.network.width, resolved.config.training.batch) == (32, 16)
    assert resolved.config.optimizer == config.optimizer


def test_a_wider_network_is_planned_with_its_own_speed(tiny_set, probed):
    probed(1 / 16_000, samples=1.0, checkpoints=0.5)
    config = recipe(length="60 minutes")
    resolved = resolve(config, tiny_set, CPU, asked={})
    assert resolved.reserve["samples"] > 2.0
    assert resolved.reserve["checkpoints"] == 0.5


def test_nothing_is_left_open(tiny, tiny_set, probed):
    probed(0.01)
    for length in ("10 minutes", "400 images"):
        words = ("training.precision=auto", "ema.snapshots=auto")
        resolved = resolve(small(tiny, *words, length=length), tiny_set, CPU).config
        assert resolved.data.fingerprint == tiny_set.fingerprint
        assert resolved.data.held_out == 0
        open_ = {"training": "micro_batch", "data": "keep"}  # what follows from the moment
        for section, table in dump(resolved).items():
            if isinstance(table, dict):
                left = [key for key, value in table.items() if value == "auto"]
                assert left == ([open_[section]] if section in open_ else [])


def test_near_duplicates_that_leave_none_to_hold_out_are_told(tiny, tiny_set):
    alike = replace(tiny_set, groups=np.zeros(18, np.int64))
    config = small(tiny, "data.held_out=5", length="40 images")
    with pytest.raises(ConfigError, match=r"data\.held_out = 5 .* near duplicates"):
        resolve(config, alike, CPU)


def test_nothing_is_probed_where_nothing_depends_on_it(tiny, tiny_set, monkeypatch):
    monkeypatch.setattr(sizing, "probe", None)
    words = [f"hooks.{name}=100" for name in ("log", "samples", "checkpoints", "held_out")]
    timed = resolve(small(tiny, *words, length="10 minutes"), tiny_set, CPU)
    counted = resolve(small(tiny, length="400 images"), tiny_set, CPU)
    asked = {"network": {"width": 8}, "training": {"batch": 4}, "optimizer": {"rate": 1e-3}}
    chosen = resolve(small(tiny, length="400 images"), tiny_set, CPU, asked=asked)
    assert chosen == counted
    assert (timed.notes, timed.reserve, counted.reserve) == ([], {}, {})


def test_a_network_chosen_for_images_is_told_with_its_hours(tiny_set, probed):
    probed(0.1, samples=1.0)
    config = recipe("faces-32", "training.precision=fp32", length="10M images")
    resolved = resolve(config, tiny_set, CPU, asked={})
    chosen, planned = resolved.notes[:2]
    assert "network.width = 96, network.groups = 8, " in chosen
    # 278 hours at the recipe's width.
    assert planned.startswith("Planned: about 1,0") and " hours at 3 images a second" in planned
    assert resolved.reserve == {}  # such a run looks at no clock


def test_of_many_processes_each_gets_pictures_in_the_probe_and_in_the_run(tiny_set, monkeypatch):
    among = Processes(world=100, local_world=100)
    monkeypatch.setattr(Processes, "broadcast", lambda self, value: value)
    tried = []

    def probe(config, *rest, processes):
        tried.append(config.training.batch)
        return Costs(1.0, {})

    monkeypatch.setattr(sizing, "probe", probe)
    config = recipe("faces-32", "training.precision=fp32", length="10 minutes")
    resolved = resolve(config, tiny_set, CPU, asked={}, processes=among)
    assert tried == [100] and resolved.config.training.batch == 100


def test_the_grid_is_drawn_by_all_processes_in_the_probe(tiny, tiny_set, monkeypatch):
    from kao.runs import probe as module

    among = []

    def draw(*args, processes, **options):
        among.append(processes)
        return iter(())

    monkeypatch.setattr(module, "draw", draw)
    config, alone = small(tiny, length="10 minutes"), Processes()
    module.probe(config, tiny_set, CPU, processes=alone, seconds=0.01)
    assert among and all(processes is alone for processes in among)


def test_the_plan_of_a_run_in_minutes_is_told(tiny, tiny_set, probed):
    probed(0.01, samples=0.5)
    resolved = resolve(small(tiny, length="10 minutes"), tiny_set, CPU)
    assert resolved.notes[0].startswith("Planned: about ")
    assert resolved.reserve == {"samples": 0.5}


def test_a_probe_measures_every_part(tiny, tiny_set):
    from kao.runs.probe import probe

    config = small(tiny, "ema.snapshots=auto", "data.held_out=4", length="10 minutes")
    costs = probe(replace(config), tiny_set, CPU, seconds=0.05)
    assert costs.image > 0
    assert set(costs.hooks) == {"samples", "checkpoints", "held_out", "snapshots"}
    assert all(seconds > 0 for seconds in costs.hooks.values())


@pytest.mark.parametrize("measure", ["probe", "precision"])
def test_nothing_of_a_model_that_is_thrown_away_stays(measure, tiny, tiny_set, monkeypatch):
    from kao.runs.precision import trusted
    from kao.runs.probe import probe

    built, build = [], RunConfig.build

    def building(*arguments, **options):
        trainer = build(*arguments, **options)
        trainer.circle = trainer  # which only a collector undoes
        built.append(weakref.ref(trainer))
        return trainer

    monkeypatch.setattr(RunConfig, "build", building)
    words = (*tiny, "data.size=8", "training.precision=bf16", "data.held_out=0")
    config = Request.of("toy-32", words, {"length": "1 minute"}).over(dump(RunConfig()))
    gc.disable()
    try:
        if measure == "probe":
            probe(config, tiny_set, CPU, seconds=0.01)
        else:
            trusted(config, tiny_set, CPU, chosen=False)
        assert [trainer() for trainer in built] == [None]
    finally:
        gc.enable()
