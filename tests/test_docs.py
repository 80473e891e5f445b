"""What the documents say can be typed, can be typed."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import kao
from kao.cli import app
from kao.cli.show import FILES
from kao.cli.train import split_words
from kao.config import Request, RunConfig, dump
from kao.config.conditioning import ConditionsConfig
from kao.data.toy_faces import ToyFaces
from kao.runs import with_sampling
from kao.visualisation import save_pictures

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app).commands


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
        page: Path below the root.
        line: Of the opening fence.
        language: The word behind it; empty if there is none.
        text: All lines.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    for first, last in zip(fences[::2], fences[1::2], strict=True):
        text = "\n".join(lines[first + 1 : last])
        language = lines[first].strip().removeprefix("```")
        yield Block(str(page.relative_to(ROOT)), first + 1, language, text)


def prose(page):
    """A page without its blocks."""
    return re.sub(r"^\s*```.*?^\s*```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language in ("python", "py")]


def typed(text):
    """The `kao` commands in the text of a block, as words."""
    for line in text.replace("\\\n", " ").splitlines():
        if not re.match(r"\s*(\$ +)?([A-Z_]+=\S* +)*kao ", line):
            continue
        for part in re.split(r"&&|\||;|>", line):
            words = shlex.split(part, comments=True)
            if "kao" in words:
                yield words[words.index("kao") + 1 :]


SHELL = [
    pytest.param(words, id=f"{block}-{' '.join(words)}")
    for block in BLOCKS
    if block not in PYTHON
    for words in typed(block.text)
]
SPANS = [
    pytest.param(shlex.split(span)[1:], id=f"{page.name}-{span}")
    for page in PAGES
    for span in dict.fromkeys(re.findall(r"`(kao [^`]+)`", prose(page)))
]


def parsed(words):
    """The command that the words name, and its values; raises where they do not fit it."""
    command = COMMANDS[words[0]]
    with command.make_context(words[0], list(words[1:])) as context:
        return words[0], context.params


def test_something_is_documented():
    assert len(SHELL) >= 5
    assert PYTHON


@pytest.mark.parametrize("words", [case for case in SHELL if not case.values[0][0].startswith("-")])
def test_commands_in_the_documents_are_understood(words):
    name, values = parsed(words)
    if name in ("train", "finetune"):
        _, recipe, overrides = split_words(values["words"] or [])
        ours = None if (recipe or "").endswith(".toml") else recipe
        Request.of(ours, overrides).over(dump(RunConfig())).check()
    if name == "sample":
        config = Request.of(None, values["overrides"] or []).over(dump(RunConfig()))
        # Guidance by classes is for models that are told some.
        with_sampling(RunConfig(conditions=ConditionsConfig(classes=True)), config.sampling)
    if name == "show" and values["run"] != "schedule":
        assert set(values["what"] or []) <= set(FILES)


@pytest.mark.parametrize("words", [case for case in SPANS if not case.values[0][0].startswith("-")])
def test_commands_in_the_prose_exist(words):
    """They may be cut short, so only what is there is looked at: the name and the options."""
    command = COMMANDS[words[0]]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= options | {
        "--help"
    }


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(blocks(page))], ids=lambda p: p.name
)
def test_python_in_the_documents_runs(page, tmp_path, monkeypatch):
    """From top to bottom, in one namespace, with runs of two steps on a few toy faces."""

    def shrunk(source, *, length=None, overrides=(), train=kao.train, **rest):
        small = ("network.width=8", "network.blocks=1", "training.batch=2", "hooks.pictures=2")
        return train(source, length="2 steps", overrides=(*overrides, *small), **rest)

    def briefly(base, source, *, length=None, finetune=kao.finetune, **rest):
        return finetune(base, source, length="2 steps", **rest)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kao, "finetune", briefly, raising=False)
    monkeypatch.setattr(kao, "train", shrunk, raising=False)
    monkeypatch.setattr("kao.runs.train", shrunk)
    python = [block for block in PYTHON if block.page == page]
    for folder in re.findall(r'"([\w.-]+/)"', "".join(block.text for block in python)):
        faces = ToyFaces(4, size=32)
        for index in range(4):
            save_pictures(faces[index].image[None], tmp_path / folder, names=[str(index)])
    namespace = {}
    for block in python:
        exec(compile("\n" * block.line + block.text, str(ROOT / block.page), "exec"), namespace)


def test_what_a_document_points_to_is_there():
    targets = {
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(page))
        if "://" not in target and not target.startswith("mailto:")
    }
    assert targets and not {(p, t) for p, t in targets if not (p.parent / t).exists()}
