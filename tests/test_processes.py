import os

import pytest
import torch
from several import several

from kao.errors import ConfigError, LoneError
from kao.processes import ALONE, VARIABLES, Processes, join, launched, leave, meeting

CPU = torch.device("cpu")


@pytest.fixture
def launcher(monkeypatch):
    """Sets the launcher's variables, and only those."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def set_(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return set_


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 6, 7, 64])
def test_shares_follow_each_other_and_differ_by_at_most_one(world, count):
    shares = [Processes(rank, world).rows(count) for rank in range(world)]
    assert [row for share in shares for row in range(count)[share]] == list(range(count))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_who_is_alone_agrees_with_itself():
    x = torch.arange(3.0)
    assert ALONE.main
    assert ALONE.rows(5) == slice(0, 5)
    assert torch.equal(ALONE.gather(x), x)
    assert torch.equal(ALONE.sum(x), x)
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.broadcast("word") == "word"
    ALONE.wait()


def in_turn(folder):
    processes = join(CPU)

    def make():
        before = len(list(folder.iterdir()))
        (folder / str(processes.rank)).touch()
        return before

    return processes.by_turns(make)


def test_one_process_makes_what_the_others_then_find(tmp_path):
    assert ALONE.by_turns(lambda: "made") == "made"
    assert several(2, in_turn, tmp_path) == [0, 1]


def test_who_is_started_without_a_launcher_is_alone(launcher):
    assert join(CPU) is ALONE
    assert launched() == 1


def test_one_process_of_a_launcher_is_alone(launcher):
    launcher(WORLD_SIZE=1, RANK=0, LOCAL_RANK=0)
    assert join(CPU) is ALONE


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": 2}, "RANK and LOCAL_RANK and MASTER_ADDR and MASTER_PORT are not set"),
        (
            {"WORLD_SIZE": 2, "RANK": 0, "MASTER_ADDR": "h", "MASTER_PORT": 1},
            "LOCAL_RANK is not set",
        ),
        ({"RANK": 1}, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE = 'two'"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE = '-1'"),
    ],
)
def test_half_a_launcher_is_refused_in_a_sentence(launcher, variables, words):
    launcher(**variables)
    with pytest.raises(ConfigError, match=words):
        join(CPU)


WHOLE = {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, "MASTER_ADDR": "h", "MASTER_PORT": 1}


def test_a_rank_that_is_none_is_refused(launcher):
    launcher(**WHOLE | {"RANK": 2})
    with pytest.raises(ConfigError, match="RANK = 2 and WORLD_SIZE = 2"):
        join(CPU)


def test_more_processes_than_gpus_are_refused(launcher, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    launcher(**WHOLE | {"RANK": 1, "LOCAL_RANK": 1})
    with pytest.raises(ConfigError, match="this machine has 1 GPU"):
        join(torch.device("cuda"))


def test_a_device_that_processes_cannot_share_is_refused(launcher):
    launcher(**WHOLE)
    with pytest.raises(ConfigError, match="'mps'"):
        join(torch.device("mps"))


@pytest.mark.parametrize(
    "words",
    [
        "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:47508",
        "Timed out waiting 3600000ms for recv operation to complete",
        "Application timeout caused pair closure",
        "NCCL communicator was aborted on rank 1",
        "Socket Timeout",
    ],
)
@pytest.mark.parametrize("address", [None, "10.0.0.7"])
def test_a_lost_process_is_told_of_in_a_sentence(launcher, words, address):
    launcher(**({} if address is None else {"MASTER_ADDR": address}))
    where = "" if address is None else f" at {address}"
    with pytest.raises(LoneError, match=f"^Another of the processes{where} stopped"), meeting():
        raise RuntimeError(words)


def test_what_has_nothing_to_do_with_the_others_passes_a_meeting():
    with pytest.raises(RuntimeError, match="shapes"), meeting():
        raise RuntimeError("shapes (2, 3) and (4, 5) cannot be multiplied")


def _meet():
    os.environ["LOCAL_WORLD_SIZE"] = "1"  # as if each had a machine of its own
    processes = join(CPU)
    rank = processes.rank
    told = {
        "joined again": join(CPU) == processes,
        "on this machine": processes.local_world,
        "even": processes.gather(torch.arange(4, dtype=torch.float64)[processes.rows(4)]),
        "uneven": processes.gather(torch.arange(5)[processes.rows(5)]),
        "none here": processes.gather(torch.ones(2 * rank, 3, dtype=torch.uint8)),
        "truths": processes.gather(torch.tensor([rank == 0])),
        "sum": processes.sum(torch.tensor([1.0, float("nan"), rank])),
        "any": [processes.any(rank == 1), processes.any(False)],
        "word": processes.broadcast({"from": rank}),
    }
    processes.wait()
    if rank == 1:
        leave()
        return told
    with pytest.raises(LoneError, match="Another of the processes"):
        processes.wait()
    return told


def test_processes_agree():
    for told in several(2, _meet):
        assert told["joined again"]
        assert told["on this machine"] == 1
        assert torch.equal(told["even"], torch.arange(4, dtype=torch.float64))
        assert torch.equal(told["uneven"], torch.arange(5))
        assert torch.equal(told["none here"], torch.ones(2, 3, dtype=torch.uint8))
        assert told["truths"].tolist() == [True, False]
        assert told["sum"][[0, 2]].tolist() == [2, 1]
        assert told["sum"][1].isnan()
        assert told["any"] == [True, False]
        assert told["word"] == {"from": 0}
    assert not set(VARIABLES) & set(os.environ)
