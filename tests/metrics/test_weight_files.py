import errno
import hashlib
from pathlib import Path

import pytest

from kao.errors import ConfigError, OutputError
from kao.metrics.weights import INCEPTION, VGG16, Published, WeightFile, find

CONTENT = b"weights" * 1000


def digest(content):
    return hashlib.sha256(content).hexdigest()


def published(url):
    return Published("inception", url, len(CONTENT), digest(CONTENT))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KAO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KAO_WEIGHTS", raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server(tmp_path, cache):
    """A folder that stands for the web."""
    (tmp_path / "web").mkdir()
    file = tmp_path / "web" / "network.pt"
    file.write_bytes(CONTENT)
    return file


@pytest.fixture
def source(server):
    return published(server.as_uri())


def found(what, named=None, *, told=None, steps=None):
    tell = told.append if told is not None else pytest.fail
    return find(
        what,
        named,
        tell=tell,
        progress=lambda *step: None if steps is None else steps.append(step),
    )


def write(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_is_nowhere_is_downloaded_once_and_kept(source, server, cache):
    steps = []
    first = found(source, steps=steps)
    server.unlink()
    assert first == found(source) == WeightFile(cache / "network.pt", digest(CONTENT))
    assert first.path.read_bytes() == CONTENT
    assert [file.name for file in cache.iterdir()] == ["network.pt"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_the_named_file_goes_before_the_folder_and_that_before_the_cache(
    source, tmp_path, cache, monkeypatch
):
    named = write(tmp_path / "mine.pt")
    inside = write(tmp_path / "folder" / "network.pt")
    monkeypatch.setenv("KAO_WEIGHTS", str(tmp_path / "folder"))
    write(cache / "network.pt")
    assert found(source, named).path == named
    assert found(source).path == inside
    inside.unlink()
    assert found(source).path == cache / "network.pt"


def test_a_named_file_with_another_hash_is_taken_and_told(source, tmp_path):
    told, other = [], b"another"
    named = write(tmp_path / "mine.pt", other)
    assert found(source, named, told=told) == WeightFile(named, digest(other))
    assert told == [
        f"{named} is not the published network.pt: scores are named after its own hash, "
        f"{digest(other)[:8]}, and do not compare with those of {digest(CONTENT)[:8]}."
    ]


def test_a_named_file_that_is_not_there_is_refused(source):
    with pytest.raises(ConfigError, match=r"inception=no\.pt, and there is no such file: give the"):
        found(source, Path("no.pt"))


@pytest.mark.parametrize("place", ["folder", "cache"])
@pytest.mark.parametrize(
    ("content", "met"),
    [
        (b"short", "5 bytes instead of 7,000"),
        (
            CONTENT.upper(),
            f"SHA-256 {digest(CONTENT.upper())[:8]} instead of {digest(CONTENT)[:8]}",
        ),
    ],
)
def test_another_file_under_the_published_name_is_refused(
    source, tmp_path, cache, monkeypatch, place, content, met
):
    folder = tmp_path / "folder" if place == "folder" else cache
    file = write(folder / "network.pt", content)
    monkeypatch.setenv("KAO_WEIGHTS", str(tmp_path if place == "cache" else folder))
    with pytest.raises(ConfigError) as error:
        found(source)
    assert str(error.value) == (
        f"{file} is not the published file ({met}): delete it, and fetch {source.url} yourself and "
        f"put it into {cache}, or say where it is with --weights inception=PATH."
    )


def test_a_folder_of_weights_that_is_not_there_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.setenv("KAO_WEIGHTS", str(tmp_path / "no"))
    with pytest.raises(ConfigError, match=r"KAO_WEIGHTS = .*no, and there is no such folder"):
        found(source)


@pytest.mark.parametrize(
    ("content", "met"),
    [
        (b"short", "5 bytes came, expected 7,000"),
        (CONTENT * 500, "1,048,576 bytes came, expected 7,000"),
        (CONTENT.upper(), f"what came has SHA-256 {digest(CONTENT.upper())[:8]}, expected "),
    ],
)
def test_a_download_of_something_else_is_refused_and_not_kept(source, server, cache, content, met):
    server.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        found(source)
    assert met in str(error.value)
    assert str(error.value).endswith(
        f": fetch {source.url} yourself and put it into {cache}, or say where it is with --weights "
        f"inception=PATH."
    )
    assert not [*cache.iterdir()]


def test_without_a_network_a_sentence_says_what_to_do(cache):
    with pytest.raises(ConfigError) as error:
        found(published("http://127.0.0.1:9/network.pt"))
    assert str(error.value) == (
        'The weights of the feature space "inception" cannot be downloaded ([Errno 111] Connection '
        f"refused): fetch http://127.0.0.1:9/network.pt yourself and put it into {cache}, or say "
        f"where it is with --weights inception=PATH."
    )


def test_a_file_that_is_gone_from_the_web_is_told(source, server):
    server.unlink()
    with pytest.raises(
        ConfigError, match=r"cannot be downloaded \(.*No such file.*\): fetch file:"
    ):
        found(source)


def test_a_full_disk_is_told_and_nothing_is_left(source, cache, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kao.files.sync", full)
    with pytest.raises(OutputError, match=r"disk is full while .*; KAO_CACHE says .*, or f"):
        found(source)
    assert not [*cache.iterdir()]


def test_a_cache_that_cannot_be_written_is_told(source, cache):
    write(cache.parent, b"a file")
    with pytest.raises(OutputError, match=r"is in the way: .*; KAO_CACHE says where downloads go"):
        found(source)


@pytest.mark.parametrize("what", [INCEPTION, VGG16])
def test_published_files_are_pinned(what):
    assert what.file.endswith(".pt")
    assert what.size > 90e6
    assert len(bytes.fromhex(what.sha256)) == 32
