import errno
import json
import pickle
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from kao.checkpoints import FOLDER, MODEL, Checkpoint
from kao.config import RunConfig
from kao.config.sections import DataConfig
from kao.errors import CheckpointError, OutputError
from kao.networks import UNetConfig
from kao.runs import Run

FILES = ["card.json", "ema-0.9.safetensors", "model.safetensors", "run.toml", "trainer.pt"]


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "conv.bias": torch.randn(4, generator=generator),
    }


def write(run, images, *, config="seed = 0\n", weights=None, state=None):
    return Checkpoint.write(
        run,
        images=images,
        config=config,
        weights=weights or {MODEL: tensors(1), "ema-0.9": tensors(2)},
        state=state or {"images": images, "optimizer": {"state": {0: tensors(3)}}},
        card={"versions": {"torch": "2"}},
    )


def images_of(run):
    return [checkpoint.images for checkpoint in Checkpoint.all(run)]


# --- what goes in comes out ---------------------------------------------------------------------


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path):
    state = {
        "images": 640,
        "seconds": 1.5,
        "name": "x",
        "list": [1, None],
        "deep": {"t": tensors()},
    }
    write(tmp_path, 640, config="seed = 7  # größer\n", state=state)
    (checkpoint,) = Checkpoint.all(tmp_path)
    assert checkpoint.images == 640
    assert checkpoint.config == "seed = 7  # größer\n"
    assert checkpoint.averages == ["ema-0.9"]
    for kind, seed in ((MODEL, 1), ("ema-0.9", 2)):
        stored = checkpoint.weights(kind)
        assert stored.keys() == tensors().keys()
        assert all(torch.equal(stored[name], value) for name, value in tensors(seed).items())
    back = checkpoint.state()
    assert torch.equal(back["deep"].pop("t")["conv.bias"], tensors()["conv.bias"])
    assert back == {"images": 640, "seconds": 1.5, "name": "x", "list": [1, None], "deep": {}}


def test_a_checkpoint_is_named_by_images_and_its_card_lists_its_files(tmp_path):
    checkpoint = write(tmp_path, 640)
    assert checkpoint.path == tmp_path / FOLDER / "000000640"
    assert sorted(file.name for file in checkpoint.path.iterdir()) == FILES
    card = json.loads((checkpoint.path / "card.json").read_text())
    assert card["images"] == 640 and card["versions"] == {"torch": "2"}
    assert sorted(card["files"]) == FILES[1:]


def test_weights_of_every_layout_and_type_survive(tmp_path):
    weights = {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "half": torch.ones(3, dtype=torch.bfloat16) / 3,
        "count": torch.tensor(7),
        "learned": nn.Parameter(torch.ones(2)),
    }
    stored = write(tmp_path, 1, weights={MODEL: weights}).weights()
    for name, value in weights.items():
        assert stored[name].dtype == value.dtype
        assert torch.equal(stored[name], value)


def test_writing_the_same_number_of_images_again_replaces_the_checkpoint(tmp_path):
    write(tmp_path, 5, config="first")
    write(tmp_path, 5, config="second")
    (checkpoint,) = Checkpoint.all(tmp_path)
    assert checkpoint.config == "second" and checkpoint.damage() is None


# --- whole or absent ----------------------------------------------------------------------------


def test_an_exception_in_the_middle_leaves_no_folder(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 5)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_what_a_killed_process_left_is_no_checkpoint_and_is_removed(tmp_path):
    left = tmp_path / FOLDER / ".000000005.partial"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    (left / "stray").write_bytes(b"half")
    assert Checkpoint.all(tmp_path) == []
    write(tmp_path, 5)
    assert sorted(f.name for f in (tmp_path / FOLDER).rglob("*")) == sorted(["000000005", *FILES])


def test_a_full_disk_is_told_and_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    write(tmp_path, 5)

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"disk is full while writing .*000000010: free some"):
        write(tmp_path, 10)
    assert images_of(tmp_path) == [5]
    assert Checkpoint.latest(tmp_path) == (Checkpoint(tmp_path / FOLDER / "000000005"), [])
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["000000005"]


@contextmanager
def no_file_larger_than(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("large", ["weights", "state"])
def test_a_file_that_cannot_be_written_to_its_end_is_told(tmp_path, large):
    huge, small = {"w": torch.zeros(100_000)}, {"w": torch.zeros(10)}
    weights, state = (huge, small) if large == "weights" else (small, huge)
    with no_file_larger_than(40_000), pytest.raises(OutputError, match="000000005 cannot be writ"):
        write(tmp_path, 5, weights={MODEL: weights}, state=state)
    assert list((tmp_path / FOLDER).iterdir()) == []


# --- damage -------------------------------------------------------------------------------------


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (truncate, "bytes where"),
        (flip, "is not what was written (its SHA-256 differs)"),
        (Path.unlink, "is missing"),
    ],
)
def test_latest_falls_back_over_a_damaged_checkpoint_and_says_so(tmp_path, name, harm, words):
    whole, damaged = write(tmp_path, 5), write(tmp_path, 10)
    harm(damaged.path / name)
    latest, (damage,) = Checkpoint.latest(tmp_path)
    assert latest == whole
    assert str(damaged.path / name) in damage and words in damage


@pytest.mark.parametrize(
    "card",
    [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"files": 3}', b'{"files": {"run.toml": {}}}'],
)
def test_a_card_that_is_garbage_makes_a_checkpoint_damaged(tmp_path, card):
    damaged = write(tmp_path, 10)
    (damaged.path / "card.json").write_bytes(card)
    latest, (damage,) = Checkpoint.latest(tmp_path)
    assert latest is None
    assert "card.json cannot be read (" in damage


def test_a_card_that_is_missing_makes_a_checkpoint_damaged(tmp_path):
    damaged = write(tmp_path, 10)
    (damaged.path / "card.json").unlink()
    assert damaged.damage() == f"{damaged.path / 'card.json'} is missing"


def test_damages_are_told_from_the_newest(tmp_path):
    for images in (5, 10, 20):
        write(tmp_path, images)
    for name in ("000000010", "000000020"):
        (tmp_path / FOLDER / name / "run.toml").unlink()
    latest, damages = Checkpoint.latest(tmp_path)
    assert latest is not None and latest.images == 5
    assert ["000000020" in damages[0], "000000010" in damages[1]] == [True, True]


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert Checkpoint.all(tmp_path) == []
    assert Checkpoint.latest(tmp_path) == (None, [])


def test_checkpoints_are_in_the_order_of_their_images(tmp_path):
    for images in (1_500_000_000, 20, 999_999_999):
        write(tmp_path, images)
    assert images_of(tmp_path) == [20, 999_999_999, 1_500_000_000]


@pytest.mark.parametrize("name", ["000000099 copy", "000000099.old", "notes"])
def test_a_folder_that_somebody_put_beside_is_no_checkpoint(tmp_path, name):
    write(tmp_path, 5)
    (tmp_path / FOLDER / name).mkdir()
    (tmp_path / FOLDER / "123").write_text("a file")
    Checkpoint.prune(tmp_path, last=1, every=2)
    assert images_of(tmp_path) == [5]
    assert (tmp_path / FOLDER / name).is_dir()


# --- pruning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "every", "kept"),
    [
        (2, 0, [90, 100]),
        (1, 25, [30, 50, 80, 100]),  # 30 is the first past 25, 80 the first past 75
        (3, 40, [40, 80, 90, 100]),
        (2, 1000, [90, 100]),
        (99, 0, list(range(10, 101, 10))),
    ],
)
def test_pruning_keeps_the_newest_and_the_first_past_each_multiple(tmp_path, last, every, kept):
    for images in range(10, 101, 10):
        write(tmp_path, images)
    Checkpoint.prune(tmp_path, last=last, every=every)
    assert images_of(tmp_path) == kept


def test_pruning_after_each_checkpoint_keeps_what_pruning_once_keeps(tmp_path):
    for images in range(10, 101, 10):
        write(tmp_path, images)
        Checkpoint.prune(tmp_path, last=2, every=25)
    assert images_of(tmp_path) == [30, 50, 80, 90, 100]


# --- loading ------------------------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)


def test_weights_are_copied_into_a_module_of_their_shape(tmp_path):
    network = Network()
    own = network.conv.weight
    write(tmp_path, 5).load_into(network, "ema-0.9")
    assert network.conv.weight is own
    assert torch.equal(own, tensors(2)["conv.weight"])


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"conv.bias": torch.zeros(4)}, "does not fit the network of its run.toml: conv.weight is"),
        ({"conv.bias": torch.zeros(4)}, "conv.weight is missing. Check [network] and data.size"),
        ({**tensors(), "extra": torch.zeros(1)}, "extra is left over."),
        (
            {**tensors(), "conv.bias": torch.zeros(5)},
            "conv.bias is (5,) where (4,) is needed.",
        ),
        (
            {f"w{i}": torch.zeros(1) for i in range(3)},
            "conv.weight is missing; conv.bias is missing; w0 is left over and 2 more. Check",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path, stored, words):
    network = Network()
    before = network.conv.bias.clone()
    with pytest.raises(CheckpointError) as caught:
        write(tmp_path, 5, weights={MODEL: stored}).load_into(network)
    assert words in str(caught.value)
    assert torch.equal(network.conv.bias, before)


def test_weights_that_are_not_there_are_told_with_those_that_are(tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights 'ema-1'; it has: ema-0\.9, model\."):
        write(tmp_path, 5).weights("ema-1")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("model.safetensors", Checkpoint.weights),
        ("trainer.pt", Checkpoint.state),
        ("run.toml", lambda checkpoint: checkpoint.config),
    ],
)
def test_reading_garbage_is_told_by_the_name_of_the_file(tmp_path, name, read):
    checkpoint = write(tmp_path, 5)
    (checkpoint.path / name).write_bytes(b"\xff\xfe\xfd" * 30)
    with pytest.raises(CheckpointError, match=name):
        read(checkpoint)


# --- pickles ------------------------------------------------------------------------------------


def test_drawing_opens_no_pickle(tmp_path, monkeypatch):
    network = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=())
    config = RunConfig(data=DataConfig(size=8), network=network)
    weights = config.build_denoiser().state_dict()
    write(tmp_path, 5, config=config.to_toml(), weights={MODEL: weights, "ema-0.9": weights})
    (tmp_path / "run.toml").write_text(config.to_toml())

    def opened(*arguments, **options):
        raise AssertionError("a pickle was opened")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, opened)
    denoiser = Run.open(tmp_path).denoiser(device=torch.device("cpu"))
    assert all(torch.equal(t, weights[name]) for name, t in denoiser.state_dict().items())


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harm-done"),)


def test_code_in_a_trainers_state_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = write(tmp_path, 5)
    torch.save({"state": Harmful()}, checkpoint.path / "trainer.pt")
    with pytest.raises(CheckpointError, match=r"trainer\.pt cannot be read"):
        checkpoint.state()
    assert not Path("harm-done").exists()
