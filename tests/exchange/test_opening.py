"""Finding models, and what is said where there is none."""

import json
import pickle
import sys

import pytest
import safetensors.torch
import torch

from kao.errors import CheckpointError, ConfigError, MissingExtraError
from kao.exchange import FORMATS, import_model
from kao.exchange.diffusers_config import write_config
from kao.exchange.located import locate
from kao.networks import UNetConfig

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

NETWORK = UNetConfig(width=8, levels=(1,), blocks=1, attention=(), groups=4, dropout=0.0)


@pytest.fixture
def folder(tmp_path):
    """A network of diffusers without its weights."""
    config = write_config(NETWORK, channels=3, outputs=3, size=8)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def said(name, **options):
    """The one sentence or two with which it is refused."""
    with pytest.raises(CheckpointError) as told:
        import_model(str(name), **options)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_name_that_is_nothing_is_said_to_be_neither(tmp_path):
    message = said(tmp_path / "nowhere")
    assert "no folder or file" in message and "owner/name" in message
    assert "no name of the hub" in said("celebahq")


def test_a_folder_without_weights_is_told_which_it_should_have(folder):
    assert "expected diffusion_pytorch_model.safetensors or " in said(folder)


def test_a_folder_of_another_program_is_told_what_is_read(tmp_path):
    assert "of no format that is read" in said(tmp_path)
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


class Trap:
    """Runs a program when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code in a pickle was run",))


def test_a_pickle_that_would_run_a_program_is_refused_unopened(tmp_path, folder):
    torch.save({"weight": Trap()}, tmp_path / "model.pt")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Trap()))
    torch.save({"weight": Trap()}, folder / "diffusion_pytorch_model.bin")
    for path in (tmp_path / "model.pt", tmp_path / "old.pth", folder):
        assert "which is not opened since it could run a program" in said(path)


def test_a_file_of_other_tensors_is_told_what_is_read(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    message = said(tmp_path / "model.safetensors")
    assert all(format_.says in message for format_ in FORMATS.values())


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
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    config = write_config(NETWORK, channels=3, outputs=3, size=8)
    theirs = diffusers.UNet2DModel.from_config({**config, "block_out_channels": [16]})
    theirs.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
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


def test_pickles_are_fetched_only_where_there_are_no_safetensors(tmp_path, monkeypatch):
    asked = []

    def download(name, *, revision, allow_patterns):
        asked.append((name, revision, [p for p in allow_patterns if p.endswith(".bin")]))
        assert not any(p.startswith("*") and p != "*.json" for p in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    source = locate("owner/name", revision="v1")
    assert (source.path, source.origin) == (tmp_path, "owner/name@v1")
    assert [bool(pickles) for _, _, pickles in asked] == [False, True]
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    asked.clear()
    locate("owner/name")
    assert asked == [("owner/name", None, [])]


def test_the_licence_at_the_top_of_a_readme_is_told(folder):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    config = write_config(NETWORK, channels=3, outputs=3, size=8)
    diffusers.UNet2DModel.from_config(config).save_pretrained(folder)
    assert import_model(str(folder)).licence is None
    (folder / "README.md").write_text("license: none of the top")
    assert import_model(str(folder)).licence is None
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# A model\n")
    assert import_model(str(folder)).licence == "apache-2.0"
