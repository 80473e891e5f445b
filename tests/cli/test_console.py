"""Signals while a run trains."""

import io
import itertools
import math
import signal
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from kao.cli import console

EVICTIONS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Stopped:
    """A trainer that counts how often it was told to stop."""

    def __init__(self):
        self.stops = 0

    def stop(self):
        self.stops += 1


@contextmanager
def stopping(trainer):
    """From when there is a trainer."""
    with console.stopping_gently() as stop:
        stop.trainer = trainer
        yield stop


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which only the test moves."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("number", "evicted"),
    [(signal.SIGINT, False), *((number, True) for number in EVICTIONS)],
)
def test_the_first_signal_stops_the_trainer_and_is_remembered(number, evicted, clock, capfd):
    trainer = Stopped()
    with stopping(trainer) as stop:
        assert (stop.number, stop.evicted) == (None, False)
        signal.raise_signal(number)
        assert (trainer.stops, stop.number, stop.evicted) == (1, number, evicted)
    assert capfd.readouterr().err == "\nStopping after this step; saving.\n"


def test_what_comes_within_two_seconds_is_the_same_signal_once_more(clock):
    trainer = Stopped()
    with stopping(trainer) as stop:
        signal.raise_signal(signal.SIGTERM)
        clock[0] += 1.5
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert (trainer.stops, stop.number) == (1, signal.SIGTERM)


def test_a_second_ctrl_c_is_taken_at_its_word(clock):
    with pytest.raises(KeyboardInterrupt), stopping(Stopped()):
        signal.raise_signal(signal.SIGINT)
        clock[0] += 2.5
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_ends_the_process_as_if_nobody_had_listened(clock, monkeypatch):
    sent, raise_signal = [], signal.raise_signal
    with stopping(Stopped()):
        raise_signal(signal.SIGTERM)
        clock[0] += 2.5
        monkeypatch.setattr(signal, "raise_signal", sent.append)
        raise_signal(signal.SIGTERM)
        assert sent == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("number", EVICTIONS)
def test_before_there_is_a_trainer_a_signal_ends_the_start(number, capfd):
    with pytest.raises(SystemExit) as caught, console.stopping_gently():
        signal.raise_signal(number)
    assert caught.value.code == console.UNFINISHED == 75
    assert capfd.readouterr().err == "\nStopped before the first step; nothing is lost.\n"


def test_before_there_is_a_trainer_ctrl_c_is_what_it_always_is():
    with pytest.raises(KeyboardInterrupt), console.stopping_gently():
        signal.raise_signal(signal.SIGINT)


def test_a_signal_in_the_middle_of_a_print_is_told_of_all_the_same(monkeypatch, capfd):
    class Printing:
        """A stream that cannot be entered twice."""

        def write(self, text):
            raise RuntimeError("reentrant call")

    with stopping(Stopped()) as stop:
        monkeypatch.setattr("sys.stderr", Printing())
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.undo()
    assert stop.number == signal.SIGTERM
    assert "Stopping after this step" in capfd.readouterr().err


def test_a_hangup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stopping(Stopped()) as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_afterwards_signals_mean_what_they_did_before():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with stopping(Stopped()):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_step_that_was_skipped_is_no_part_of_the_mean_loss_on_the_screen(monkeypatch):
    from kao.cli.train import _loop_behind_bar
    from kao.training import Progress, Step

    shown = []

    @contextmanager
    def bar():
        yield SimpleNamespace(
            add_task=lambda *a, **k: 0, update=lambda task, **told: shown.append(told["figures"])
        )

    ticks = itertools.count()
    monkeypatch.setattr(console, "bar", bar)
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    steps = [
        Step(loss=loss, gradient_norm=norm, waited=0.0, skipped=norm == math.inf)
        for loss, norm in ((0.5, 1.0), (90.0, math.inf), (0.5, 1.0))
    ]
    trainer = SimpleNamespace(
        steps=lambda: steps, progress=Progress(), done=0.5, device=torch.device("cpu")
    )
    quiet = SimpleNamespace(take=list)
    _loop_behind_bar(SimpleNamespace(trainer=trainer, notices=quiet, news=quiet))
    assert [figures.split("  ")[0] for figures in shown] == ["loss 0.5000"] * 3


def test_brackets_and_codes_in_names_are_shown_and_not_obeyed(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(console, "console", terminal)
    with console.bar() as progress:
        console.Bars(progress).show("[v2] a[/b] \x1b[31m :cat:", 1, 2)
    assert r"[v2] a[/b] \x1b[31m :cat:" in screen.getvalue()


def test_a_remark_is_one_line_whatever_name_it_holds(capsys):
    console.say("[bold]a[/c]\nb\x1b]0;title\x07 :cat: fl\udce4chen")
    assert capsys.readouterr().err == r"[bold]a[/c]\nb\x1b]0;title\x07 :cat: fl\xe4chen" + "\n"
