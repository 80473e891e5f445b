"""Networks in files of training loops: prefixes, tables in tables, averages, what lies beside."""

import json
from itertools import permutations

import numpy as np
import openai_reference
import pytest
import safetensors.torch
import torch
from openai_reference import Options

from kao.errors import CheckpointError
from kao.exchange import import_model
from kao.exchange.diffusers_config import write_config
from kao.exchange.diffusers_names import rules
from kao.exchange.renaming import to_theirs
from kao.exchange.wrapped import averaged, flat, neighbours, prefixes, unwrapped
from kao.networks import UNetConfig

OPTIONS = Options(multiples=(1, 2), blocks=1, heads=2, outputs=3)
FACTS = {"size": 8, "heads": 2, "schedule": "linear", "steps": 1000, "attention_order": "legacy"}
BARE = openai_reference.drawn(OPTIONS)
NETWORK = UNetConfig(width=8, levels=(1,), blocks=1, attention=(), groups=4, dropout=0.0)


def prefixed(prefix, state=BARE):
    return {prefix + name: tensor for name, tensor in state.items()}


def nested(words, state=BARE):
    for word in reversed(words):
        state = {word: state}
    return state


def half(state=BARE):
    return {name: tensor / 2 for name, tensor in state.items()}


def read(folder, content, **options):
    torch.save(content, folder / "model.pt")
    return import_model(folder / "model.pt", facts=FACTS, **options)


def same(model, other):
    return all(torch.equal(model.weights[name], other.weights[name]) for name in other.weights)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    model = read(tmp_path_factory.mktemp("plain"), BARE)
    assert not model.notes
    return model


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "ema.", "ema_model.", "net.", "network.", "unet."),
        *("diffusion_model.", "model.diffusion_model.", "module._orig_mod.", "_orig_mod.module."),
        *("model._orig_mod.diffusion_model.", "generator.module.net.", "_fsdp_wrapped_module."),
    ],
)
def test_a_prefix_is_taken_off_and_named(prefix, plain, tmp_path):
    model = read(tmp_path, prefixed(prefix))
    assert same(model, plain)
    assert len(model.notes) == 1 and f'"{prefix}"' in model.notes[0]


@pytest.mark.parametrize(
    "words", [*permutations(["state_dict", "model", "module"], 2), ["params_ema"], ["a", "b", "c"]]
)
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_tables_in_tables_and_prefixes_go_in_any_order(words, prefix, plain, tmp_path):
    model = read(tmp_path, {**nested(words, prefixed(prefix)), "epoch": 3})
    assert same(model, plain)


def test_a_wrapper_around_a_part_is_taken_off(plain, tmp_path):
    state = {
        name.replace("middle_block.", "middle_block._orig_mod."): tensor
        for name, tensor in BARE.items()
    }
    assert same(read(tmp_path, state), plain)


@pytest.mark.parametrize(
    ("content", "name", "other"),
    [
        ({"model": BARE, "ema": half()}, "ema", "model"),
        ({"params": BARE, "params_ema": half()}, "params_ema", "params"),
        ({"state_dict": BARE, "state_dict_ema": half()}, "state_dict_ema", "state_dict"),
        ({"state_dict": {**prefixed("net."), **prefixed("net_ema.", half())}}, "net_ema", "net"),
        ({**BARE, **prefixed("ema.", half())}, "ema", "model"),
        ({"ema_0.9999": half(), "model": BARE}, "ema_0.9999", "model"),
        (
            {"ema": {"online_model": prefixed("m."), "ema_model": prefixed("m.", half())}},
            "ema_model",
            "online_model",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_averaged_weights_are_taken_and_the_others_can_be_asked_for(
    content, name, other, plain, tmp_path
):
    model = read(tmp_path, content)
    note = next(note for note in model.notes if "sets" in note)
    assert f"averaged weights, {name}," in note and f"--weights {other} " in note
    assert all(torch.equal(t, plain.weights[key] / 2) for key, t in model.weights.items())
    asked = read(tmp_path, content, weights=other)
    assert same(asked, plain) and not any("sets" in note for note in asked.notes)
    assert same(read(tmp_path, content, weights=name), model)
    with pytest.raises(CheckpointError, match=f'has no weights "best": it holds .*{name}'):
        read(tmp_path, content, weights="best")


def test_tensors_that_are_passed_over_are_counted_and_named(tmp_path):
    content = {
        "state_dict": {
            **prefixed("model.diffusion_model."),
            "model.betas": torch.zeros(5),
            **{f"model_ema.no{i}": torch.zeros(1) for i in range(7)},
        },
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(1), "step": torch.tensor(1)}}}],
        "epoch": 3,
    }
    note = read(tmp_path, content).notes[-1]
    assert note.startswith("10 tensors were passed over")
    for count in ("7 of state_dict.model_ema", "2 of optimizer_states", "1 of state_dict.model"):
        assert count in note


def test_numbers_of_numpy_are_read_and_named(plain, tmp_path):
    content = {
        "model": BARE,
        "fid": np.float64(12.5),
        "step": np.int64(3),
        "best": np.bool_(True),
        "kind": np.str_("ema"),
        "losses": np.arange(3.0, dtype=np.float32),
    }
    model = read(tmp_path, content)
    assert same(model, plain)
    assert "fid = 12.5, step = 3, best = True, kind = ema" in model.notes[0]


def test_the_names_of_numpy_before_2_are_known(tmp_path):
    # Protocol 2 of an array as NumPy 1 writes it: the module had no underscore.
    torch.save({"fid": np.float64(0.5)}, path := tmp_path / "m.pt", pickle_protocol=2)
    old = path.read_bytes()
    assert old.count(b"numpy._core.multiarray") == 1
    torch.save(
        {"fid": np.float64(0.5)},
        path,
        pickle_protocol=2,
        _use_new_zipfile_serialization=False,
    )
    content = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(content)
    from kao.exchange.located import read_weights

    assert read_weights(path) == {"fid": 0.5}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, True) for name in ("ema", "unet_ema", "ema_0.9999_500000", "params_ema", "EMA")),
        *((name, True) for name in ("swa", "shadow_params", "model-averaged", "avg_model")),
        *((name, False) for name in ("model", "schema", "exp_avg", "emanuel", "cinema", "")),
    ],
)
def test_names_tell_of_averages(name, expected):
    assert averaged(name) is expected


def test_prefixes_are_those_with_all_anchors():
    tensors = flat(
        {"a": {"x.w": torch.zeros(1), "y.w": torch.zeros(1)}, "b": {"x.w": BARE["out.0.weight"]}}
    )
    assert prefixes(tensors, "x.w", "y.w") == ["a."]
    assert prefixes(tensors, "x.w") == ["a.", "b."]
    assert not prefixes({"max.w": torch.zeros(1)}, "x.w")


def test_tables_around_a_network_are_found_the_nearest_first():
    tensors = {name: torch.tensor(float(i)) for i, name in enumerate(["w.betas", "w.m.w", "betas"])}
    tensors["w.m.x"] = torch.zeros(1)
    found = unwrapped(tensors, "x", origin="", tables=("betas",))
    assert found.beside == {"betas": tensors["w.betas"]} and set(found.state) == {"w", "x"}


@pytest.mark.parametrize("depth", [1, 100])
def test_tables_are_looked_into_as_far_as_anybody_nests_them(depth):
    assert bool(flat(nested(["a"] * depth, {"x": torch.zeros(1)}))) is (depth == 1)


def test_averages_in_a_file_beside_are_named(tmp_path):
    torch.save(BARE, tmp_path / "model010000.pt")
    torch.save(BARE, tmp_path / "ema_0.9999_010000.pt")
    notes = import_model(str(tmp_path / "model010000.pt"), facts=FACTS).notes
    assert len(notes) == 1 and "ema_0.9999_010000.pt" in notes[0]
    assert not import_model(str(tmp_path / "ema_0.9999_010000.pt"), facts=FACTS).notes
    (tmp_path / "ema_notes.txt").touch()
    assert neighbours(tmp_path / "model010000.pt") == [*notes]


# --- folders of diffusers -------------------------------------------------------------------------


def network_folder(folder, factor=1.0, *, more=None, change=lambda state: state):
    folder.mkdir(parents=True)
    config = write_config(NETWORK, channels=3, outputs=3, size=8)
    (folder / "config.json").write_text(json.dumps({**config, **(more or {})}))
    torch.manual_seed(0)
    state = NETWORK.build(channels=3, size=8).state_dict()
    theirs = to_theirs(rules(NETWORK, size=8), {k: v * factor for k, v in state.items()})
    safetensors.torch.save_file(change(theirs), folder / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("name", ["unet_ema", "ema_unet", "ema"])
def test_averaged_weights_in_a_folder_beside_are_taken_unless_the_others_are_asked_for(
    name, tmp_path
):
    network_folder(tmp_path / "unet")
    network_folder(tmp_path / name, 2.0, more={"decay": 0.99, "optimization_step": 9})
    taken = import_model(tmp_path)
    assert f"averaged weights in {name} were taken: --weights unet takes" in taken.notes[0]
    asked = import_model(tmp_path, weights="unet")
    assert not any("were taken" in note for note in asked.notes)
    assert torch.equal(taken.weights["conv_in.weight"], 2 * asked.weights["conv_in.weight"])
    alone = import_model(tmp_path / "unet")
    assert same(alone, asked) and name in alone.notes[0]
    assert same(import_model(tmp_path, weights=name), taken)


def test_variants_beside_the_weights_are_named(tmp_path):
    network_folder(tmp_path / "unet")
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.with_name("diffusion_pytorch_model.non_ema.safetensors").write_bytes(file.read_bytes())
    file.with_name("diffusion_pytorch_model.fp16.safetensors").write_bytes(file.read_bytes())
    assert "--weights fp16 or --weights non_ema" in import_model(tmp_path).notes[0]
    assert not any("non_ema" in note for note in import_model(tmp_path, weights="fp16").notes)


def test_prefixes_in_a_folder_are_taken_off(tmp_path):
    network_folder(tmp_path / "a")
    network_folder(tmp_path / "b", change=lambda state: prefixed("module._orig_mod.", state))
    assert same(found := import_model(tmp_path / "b"), import_model(tmp_path / "a"))
    assert '"module._orig_mod."' in found.notes[0]


def test_shards_without_an_index_are_read_where_all_are_there(tmp_path):
    network_folder(tmp_path / "a")
    network_folder(tmp_path / "b")
    file = tmp_path / "b" / "diffusion_pytorch_model.safetensors"
    state = safetensors.torch.load_file(file)
    file.unlink()
    names = sorted(state)
    for i, part in enumerate((names[:5], names[5:]), start=1):
        shard = file.with_name(f"diffusion_pytorch_model-0000{i}-of-00002.safetensors")
        safetensors.torch.save_file({name: state[name] for name in part}, shard)
    assert same(import_model(tmp_path / "b"), import_model(tmp_path / "a"))
    shard.unlink()
    with pytest.raises(CheckpointError, match="1 of the 2 files"):
        import_model(tmp_path / "b")
