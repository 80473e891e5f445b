"""What every test stands on: no network, deterministic torch, the real pictures where they are."""

import os
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
