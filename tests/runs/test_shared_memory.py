"""What is kept in memory on a machine that several processes share."""

import pytest
import torch

import kao.config.run
import kao.runs.start
from kao.config import RunConfig
from kao.config.sections import TrainingConfig
from kao.processes import Processes
from kao.runs import Ask, open_session

CPU = torch.device("cpu")
HERE = 3


@pytest.fixture
def told(monkeypatch):
    """For how many processes it was asked where the pictures lie."""
    told = []

    def place(prepared, asked, device, *, processes):
        told.append(processes)
        return "disk"

    monkeypatch.setattr(kao.config.run, "place", place)
    monkeypatch.setattr(kao.runs.start, "place", place)
    return told


def test_a_run_keeps_its_pictures_where_those_of_its_machine_have_room(
    tiny, tmp_path, told, monkeypatch
):
    monkeypatch.setattr(kao.runs.start, "join", lambda device: Processes(local_world=HERE))
    open_session(Ask(tmp_path / "run", "toy:8", "toy-32", tiny), CPU)
    assert told and set(told) == {HERE}


def test_a_trainer_keeps_its_pictures_where_those_of_its_machine_have_room(tiny_set, told):
    config = RunConfig(training=TrainingConfig(batch=4, precision="fp32"))
    config.build(tiny_set, CPU, processes=Processes(local_world=HERE))
    assert told == [HERE]
