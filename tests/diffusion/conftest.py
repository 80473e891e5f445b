"""One thread for tensors of a few dozen numbers."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    # Threads that wait for each other on tiny tensors made this folder 20 times slower on a
    # busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
