"""Standard streams that are full, closed, deaf, or know few letters."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")

SPEAKS = """
import sys
from kao.cli.streams import Output, put, refuse
output = Output()
put("first")
{meanwhile}
put("last \\N{{LATIN SMALL LETTER E WITH ACUTE}}")
lost = output.undelivered()
if lost:
    refuse(lost)
sys.exit(2 if lost else 0)
"""


def command(meanwhile=""):
    return [sys.executable, "-c", SPEAKS.format(meanwhile=meanwhile)]


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def kept(err):
    """What is in the file that a message names."""
    return Path(re.search(r"the results are in (\S+)\.\n", err)[1]).read_text(encoding="utf-8")


@pytest.mark.skipif(not FULL.exists(), reason="/dev/full is missing")
def test_results_that_a_full_disk_does_not_take_are_kept_elsewhere():
    with FULL.open("w") as full:
        done = subprocess.run(command(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, kept(done.stderr)) == (2, "first\nlast é\n")
    assert "No space left on device" in done.stderr


def test_results_for_a_closed_standard_output_are_kept():
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command()], stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, kept(done.stderr)) == (2, "first\nlast é\n")


def test_results_for_a_reader_who_was_gone_before_are_kept():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command(), stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, kept(done.stderr)) == (2, "first\nlast é\n")


def test_a_reader_who_leaves_in_the_midst_as_head_does_is_no_mistake(tmp_path):
    waits = "sys.stdin.readline()"
    with subprocess.Popen(
        command(waits), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as told:
        assert told.stdout.readline() == b"first\n"
        told.stdout.close()
        told.stdin.write(b"\n")
        told.stdin.close()
        assert (told.wait(), told.stderr.read()) == (0, b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full"])
def test_nobody_need_hear_the_remarks(closing):
    remarks = "[sys.stderr.write('x' * 9000 + chr(10)) for _ in range(50)]"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *command(remarks)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "first\nlast é\n")


def test_no_file_is_opened_under_the_number_of_a_stream_that_is_closed(tmp_path):
    opens = f"put(str(open({str(tmp_path / 'metrics')!r}, 'w').fileno() > 2))"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *command(opens)], stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.splitlines()[1] == "True"


def test_a_letter_that_a_terminal_cannot_write_is_written_as_an_escape():
    few = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command(), env=few, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"first\nlast \\xe9\n")


def test_a_name_in_a_result_moves_no_cursor(kao, tmp_path, monkeypatch):
    folder = tmp_path / "a\x1b[31m\nb"
    folder.mkdir()
    code, _, err = kao("sample", folder)
    assert code == 2
    assert "\x1b" not in err and "a\\x1b[31m b" in err


def test_help_for_a_reader_who_is_gone_is_not_kept(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "kao", "--help"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not list(tmp_path.iterdir())


def test_a_run_whose_messages_nobody_reads_goes_on_to_its_end(train, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    words = [*map(str, train), "--steps", "4", "hooks.log=4"]
    done = subprocess.run(
        [sys.executable, "-m", "kao", *words], stdout=writer, stderr=writer, timeout=120
    )
    os.close(writer)
    assert done.returncode == 0
    assert (tmp_path / "run" / "checkpoints" / "000000016" / "card.json").exists()


def test_a_terminal_of_no_width_is_told_all_the_same(own_run):
    done = subprocess.run(
        [sys.executable, "-m", "kao", "sample", own_run, "--n", "2"],
        env={**os.environ, "COLUMNS": "0"},
        capture_output=True,
        text=True,
    )
    assert "grid of 2 in" in done.stderr
