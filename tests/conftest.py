"""What every test stands on: no network, deterministic torch, the real pictures where they are."""

import os
import signal
import socket
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, request):
    """Tests reach no host but this one; those that drive a browser ask for `loopback`."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests may not connect to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True, scope="session")
def _deterministic():
    torch.use_deterministic_algorithms(True)


@pytest.fixture(autouse=True, scope="session")
def _signals_as_in_a_terminal():
    """Behind nohup, or in the background of a script, some are ignored, and children inherit it."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small tensors gain nothing from threads, and threads that share a core only wait."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
    torch.set_num_threads(1)


@pytest.fixture
def real_data():
    """The path of a file of real pictures: real_data("anime64.zip")."""

    def find(name: str) -> Path:
        folder = os.environ.get("KAO_TEST_DATA")
        if not folder:
            pytest.skip("KAO_TEST_DATA is not set: no real pictures to test with")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"{path} is missing: no real pictures to test with")
        return path

    return find


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """What tests prepare is shared by them, and stays out of the cache of whoever runs them."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KAO_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny():
    """Overrides that make a run of toy-32 take a second."""
    return (
        "network.width=8",
        "network.levels=[1,2]",
        "network.attention=[]",
        "network.stem=1",
        "data.size=16",
        "training.batch=4",
        "training.precision=fp32",
        "sampling.steps=2",
        "hooks.pictures=2",
        "evaluation.every=0",
        "tracking.tensorboard=false",
    )


@pytest.fixture(scope="session")
def tiny_run(tiny, tmp_path_factory):
    """The directory of a finished run of four steps; copy it to change it."""
    import kao

    words = (*tiny, "hooks.log=4", "hooks.checkpoints=8")
    path = tmp_path_factory.mktemp("runs") / "tiny"
    kao.train("toy:8", run=path, recipe="toy-32", length="4 steps", overrides=words)
    return path


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory):
    """A prepared set: eighteen toy faces of 8x8 pixels, with classes."""
    from kao.data import prepare
    from kao.data.toy_faces import ToyFaces

    folder = tmp_path_factory.mktemp("prepared") / "tiny"
    return prepare(ToyFaces(18, size=16), size=8, out=folder, workers=1)
