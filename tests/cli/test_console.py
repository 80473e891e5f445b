"""Signals while a run trains."""

import signal

import pytest

from kao.cli import console


class Stopped:
    """A trainer that counts how often it was told to stop."""

    def __init__(self):
        self.stops = 0

    def stop(self):
        self.stops += 1


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which only the test moves."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("number", "evicted"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGUSR1, True)],
)
def test_the_first_signal_stops_the_trainer_and_is_remembered(number, evicted, clock, capsys):
    trainer = Stopped()
    with console.stopping_gently(trainer) as stop:
        assert (stop.number, stop.evicted) == (None, False)
        signal.raise_signal(number)
        assert (trainer.stops, stop.number, stop.evicted) == (1, number, evicted)
    assert capsys.readouterr().err == "\nStopping after this step; saving.\n"


def test_what_comes_within_two_seconds_is_the_same_signal_once_more(clock):
    trainer = Stopped()
    with console.stopping_gently(trainer) as stop:
        signal.raise_signal(signal.SIGTERM)
        clock[0] += 1.5
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert (trainer.stops, stop.number) == (1, signal.SIGTERM)


def test_a_second_ctrl_c_is_taken_at_its_word(clock):
    with pytest.raises(KeyboardInterrupt), console.stopping_gently(Stopped()):
        signal.raise_signal(signal.SIGINT)
        clock[0] += 2.5
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_ends_the_process_as_if_nobody_had_listened(clock, monkeypatch):
    sent, raise_signal = [], signal.raise_signal
    with console.stopping_gently(Stopped()):
        raise_signal(signal.SIGTERM)
        clock[0] += 2.5
        monkeypatch.setattr(signal, "raise_signal", sent.append)
        raise_signal(signal.SIGTERM)
        assert sent == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_afterwards_signals_mean_what_they_did_before():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with console.stopping_gently(Stopped()):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
