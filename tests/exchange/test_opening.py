"""Finding models, and what is said where there is none."""

import argparse
import io
import json
import pathlib
import pickle
import sys
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
import safetensors.torch
import torch

from kao.errors import CheckpointError, ConfigError, MissingExtraError
from kao.exchange import FORMATS, import_model
from kao.exchange.diffusers_config import write_config
from kao.exchange.diffusers_names import rules
from kao.exchange.located import locate, read_weights
from kao.exchange.renaming import to_theirs
from kao.networks import UNetConfig

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

NETWORK = UNetConfig(width=8, levels=(1,), blocks=1, attention=(), groups=4, dropout=0.0)


@pytest.fixture
def folder(tmp_path):
    """A network of diffusers without its weights."""
    config = write_config(NETWORK, channels=3, outputs=3, size=8)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def saved(network, folder):
    """The weights of a network of ours, as diffusers would have them."""
    theirs = to_theirs(rules(network, size=8), network.build(channels=3, size=8).state_dict())
    safetensors.torch.save_file(theirs, folder / "diffusion_pytorch_model.safetensors")


def said(name, **options):
    """The one sentence or two with which it is refused."""
    with pytest.raises(CheckpointError) as told:
        import_model(str(name), **options)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_name_that_is_nothing_is_said_to_be_neither():
    message = said("no/where/at-all")
    assert "no folder or file" in message and "owner/name" in message
    assert "no name of the hub" in said("celebahq")


@pytest.mark.parametrize("name", ["./nothing", "../no/thing", "~/no-such-folder", "/nothing"])
def test_a_name_that_can_only_be_a_path_is_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("it was asked"))
    message = said(name)
    assert f"no folder or file {name}:" in message and "hub" not in message


def test_a_name_that_names_nothing_is_refused():
    assert "The name is empty" in said("")
    assert "The name is empty" in said(" ")
    with pytest.raises(ConfigError, match="home directory ~no-such-user-here"):
        import_model("~no-such-user-here/model")


def test_a_folder_without_weights_is_told_which_it_should_have(folder):
    assert "expected diffusion_pytorch_model.safetensors or " in said(folder)


def unreachable(monkeypatch):
    """As the hub is without a network."""

    def refuse(*args, **options):
        raise hub.errors.LocalEntryNotFoundError("no")

    monkeypatch.setattr(hub, "snapshot_download", refuse)


def test_a_folder_of_something_else_is_told_what_it_holds(tmp_path):
    assert "is an empty folder: expected " in said(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "one.PNG").write_bytes(b"")
    assert f"kao finetune BASE {tmp_path} begins with one" in said(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.toml").write_text("")
    assert said(tmp_path).endswith(f"name one of them, as {tmp_path / 'mine'}.")


def test_a_misspelt_path_is_told_what_stands_there(tmp_path, monkeypatch):
    (tmp_path / "runs" / "people").mkdir(parents=True)
    there = tmp_path / "runs" / "people"
    assert f'(did you mean "{there}"?)' in said(tmp_path / "runs" / "peopel")
    monkeypatch.chdir(tmp_path)
    unreachable(monkeypatch)
    message = said("runs/peopel")
    assert message.startswith('There is no folder or file runs/peopel here (did you mean "runs/pe')


@pytest.mark.parametrize("host", ["https://huggingface.co", "huggingface.co", "http://hf.co"])
@pytest.mark.parametrize("end", ["", "/", "/tree/main"])
def test_the_address_of_a_page_of_the_hub_is_as_good_as_its_name(host, end, monkeypatch):
    unreachable(monkeypatch)
    address = f"{host}/google/ddpm-cifar10-32{end}"
    assert said(address).startswith("There is no folder or file google/ddpm-cifar10-32 here,")
    assert "no name of the hub" in said("https://example.com/google/ddpm-cifar10-32")


def test_a_folder_of_another_program_is_told_what_is_read(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "is a folder of no format that is read: expected " in said(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    assert "is a UNet2DConditionModel, which no network here is" in said(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_a_configuration_that_is_no_table_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in said(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.bin"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x04"])
def test_a_file_that_is_damaged_is_named(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    assert str(file) in said(file)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "config.json"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, name):
    (tmp_path / name).touch()
    assert said(tmp_path / name).endswith(f"{name} is empty: copy or fetch it again.")


class Trap:
    """Runs a program when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code in a pickle was run",))


def test_a_pickle_that_would_run_a_program_is_refused_unopened(tmp_path, folder):
    torch.save({"weight": Trap()}, tmp_path / "model.pt")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Trap()))
    torch.save({"weight": Trap()}, folder / "diffusion_pytorch_model.bin")
    for path in (tmp_path / "model.pt", tmp_path / "old.pth", folder):
        assert "stays closed, since opening it could run a program" in said(path)


ANYTHING = {"weight": torch.zeros(5000)}


def packed(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


OLD = {"_use_new_zipfile_serialization": False}


@pytest.mark.parametrize(
    ("held", "name"),
    [
        (pathlib.Path("a"), "pathlib."),
        (argparse.Namespace(rate=1), "argparse.Namespace"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (Trap(), "_pytest.outcomes"),
        (np.array([object()]), "numpy.dtypes.ObjectDType"),
        (print, "print"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("form", [{}, OLD], ids=["new", "old"])
def test_what_is_refused_in_a_pickle_is_named_and_torch_s_advice_is_not_passed_on(
    held, name, form, tmp_path
):
    file = tmp_path / "model.pt"
    try:
        file.write_bytes(packed({**ANYTHING, "more": held}, **form))
    except (AttributeError, pickle.PicklingError):
        return
    message = said(file)
    assert f"holds {name}" in message and "stays closed" in message
    assert "weights_only" not in message and "add_safe_globals" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"\n <html>Sign in</html>", "is a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
        (b'{"error": "Repository not found"}', "is a text of JSON"),
        (packed(ANYTHING)[:9000], "cut off after 9,000 bytes"),
        (packed(ANYTHING, **OLD)[:9000], "cut off after 9,000 bytes"),
        (safetensors.torch.save(ANYTHING)[:9000], "cut off after 9,000 bytes"),
        (safetensors.torch.save(ANYTHING)[:30], "cut off after 30 bytes"),
        (pickle.dumps({"weight": 1}), "a pickle that torch did not write"),
        (b"no weights at all", "is no file of weights"),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.bin"])
def test_what_lies_in_the_place_of_weights_is_named(content, words, name, tmp_path, folder):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / name
    file.write_bytes(content)
    assert words in said(file)
    (folder / "diffusion_pytorch_model.bin").write_bytes(content)
    assert words in said(folder)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("pack", [packed, safetensors.torch.save], ids=["torch", "safetensors"])
def test_what_a_file_begins_with_tells_how_it_is_read(name, pack, tmp_path):
    (tmp_path / name).write_bytes(pack(ANYTHING))
    assert read_weights(tmp_path / name)["weight"].shape == (5000,)


def test_a_path_is_as_good_as_its_name(folder):
    saved(NETWORK, folder)
    assert import_model(folder).weights.keys() == import_model(str(folder)).weights.keys()


def test_a_file_of_other_tensors_is_told_what_is_read(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    message = said(tmp_path / "model.safetensors")
    assert all(format_.says in message for format_ in FORMATS.values())


def test_weights_beside_their_configuration_are_asked_for_by_their_folder(tmp_path):
    pipeline = tmp_path / "pipeline"
    file = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    file.parent.mkdir(parents=True)
    (file.parent / "config.json").touch()
    safetensors.torch.save_file({"weight": torch.zeros(2)}, file)
    assert f"name its folder, {file.parent}." in said(file)
    (pipeline / "model_index.json").touch()
    assert f"name its folder, {pipeline}." in said(file)


def test_weights_of_a_name_are_refused_of_what_has_one_set(tmp_path):
    file = tmp_path / "kao.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, file, metadata={"kao": "1"})
    message = said(file, weights="fp16")
    assert 'has no weights "fp16"' in message and "Leave --weights out." in message


def test_names_of_classes_that_are_no_table_are_refused(folder):
    (folder / "model_index.json").write_text('{"id2label": ["cat"]}')
    saved(NETWORK, folder)
    assert "id2label in model_index.json" in said(folder)


def test_weights_that_are_no_state_dict_are_refused(folder):
    torch.save([torch.zeros(2)], folder / "diffusion_pytorch_model.bin")
    assert "it is no state dict" in said(folder)


def test_weights_of_another_network_are_refused_by_name(folder):
    network = NETWORK.build(channels=3, size=8)
    safetensors.torch.save_file(
        network.state_dict(), folder / "diffusion_pytorch_model.safetensors"
    )
    message = said(folder)
    assert "time_embedding.linear_1.weight is missing" in message and " more" in message


def test_weights_of_another_shape_are_refused_by_name(folder):
    saved(replace(NETWORK, width=16), folder)
    model = import_model(str(folder))
    with pytest.raises(
        CheckpointError, match=r"embed\.0\.weight is \(64, 16\) where \(32, 8\) is needed"
    ):
        model.build()


def test_a_fact_that_no_model_leaves_open_is_refused_with_the_near_miss(folder):
    with pytest.raises(ConfigError, match=r'"siz" cannot be said .*did you mean "size"'):
        import_model(str(folder), facts={"siz": 8})


def test_a_run_is_told_that_it_is_one_already(tmp_path):
    (tmp_path / "run.toml").touch()
    assert "is a kao run already" in said(tmp_path)


def test_a_folder_has_no_revisions(folder):
    assert 'no revision "main"' in said(folder, revision="main")


def response(status):
    import httpx2

    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co"))


def connection():
    """As the client of the hub raises it, which may be no OSError."""
    base = hub.errors.HfHubHTTPError.__bases__[0]
    return base("Name or service not known")


FAILURES = {
    "offline": (lambda: hub.errors.LocalEntryNotFoundError("no"), "the hub cannot be reached"),
    "missing": (
        lambda: hub.errors.RepositoryNotFoundError("404", response=response(404)),
        "neither a folder google/ddpm-cifar10-32 here nor a model",
    ),
    "gated": (
        lambda: hub.errors.GatedRepoError("403", response=response(403)),
        "accepted its terms",
    ),
    "revision": (
        lambda: hub.errors.RevisionNotFoundError("404", response=response(404)),
        'not at revision "v9"',
    ),
    "server": (
        lambda: hub.errors.HfHubHTTPError("500 Server\nError", response=response(500)),
        r"could not be fetched \(500 Server Error\)",
    ),
    "connection": (connection, "Name or service not known"),
    "disk": (lambda: OSError("No space left on device"), "No space left on device"),
    "name": (lambda: hub.errors.HFValidationError("bad name"), "bad name"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_of_the_hub_is_one_sentence(name, monkeypatch):
    error, words = FAILURES[name]

    def fails(*_, **__):
        raise error()

    monkeypatch.setattr(hub, "snapshot_download", fails)
    with pytest.raises(CheckpointError, match=words) as told:
        import_model("google/ddpm-cifar10-32", revision="v9")
    assert "\n" not in str(told.value)


def test_without_the_hub_s_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"\[hub\]"):
        locate("google/ddpm-cifar10-32")


@pytest.fixture
def hub_of(tmp_path, monkeypatch):
    """A hub with a single repository of the files that it is called with."""
    kept = tmp_path / "kept"
    kept.mkdir()

    def make(*names):
        fetched = []

        def download(name, *, revision, allow_patterns):
            for file in names:
                if any(fnmatchcase(file, pattern) for pattern in allow_patterns):
                    fetched.append(file)
                    (kept / file).parent.mkdir(exist_ok=True)
                    (kept / file).touch()
            return str(kept)

        monkeypatch.setattr(hub, "snapshot_download", download)
        return fetched

    return make


WEIGHTS = "diffusion_pytorch_model"
REPOSITORY = (
    "config.json",
    "training.pt",
    "vae/diffusion_pytorch_model.safetensors",
    *(
        f"{folder}{WEIGHTS}{variant}.{ending}"
        for folder in ("", "unet/", "unet_ema/")
        for variant in ("", ".fp16", ".non_ema", "-00001-of-00002", ".fp16-00001-of-00002")
        for ending in ("safetensors", "bin")
    ),
)


@pytest.mark.parametrize(("weights", "variant"), [("auto", ""), ("fp16", ".fp16"), ("unet", "")])
def test_of_several_variants_the_one_that_is_wanted_is_fetched(hub_of, weights, variant):
    fetched = hub_of(*REPOSITORY)
    locate("owner/name", weights=weights)
    assert set(fetched) == {
        "config.json",
        *(
            f"{folder}{WEIGHTS}{variant}{shard}.safetensors"
            for folder in ("", "unet/", "unet_ema/")
            for shard in ("", "-00001-of-00002")
        ),
    }


def test_pickles_are_fetched_only_where_there_are_no_safetensors(hub_of, tmp_path):
    fetched = hub_of("config.json", f"{WEIGHTS}.fp16.safetensors", f"{WEIGHTS}.bin")
    source = locate("owner/name", revision="v1", weights="fp16")
    assert (source.path, source.origin) == (tmp_path / "kept", "owner/name@v1")
    assert not any(name.endswith(".bin") for name in fetched)
    locate("owner/name")  # the variant, which lies here by now, does not do
    assert fetched[-1] == f"{WEIGHTS}.bin"


def test_the_licence_at_the_top_of_a_readme_is_told(folder):
    saved(NETWORK, folder)
    assert import_model(str(folder)).licence is None
    (folder / "README.md").write_text("license: none of the top")
    assert import_model(str(folder)).licence is None
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# A model\n")
    assert import_model(str(folder)).licence == "apache-2.0"
