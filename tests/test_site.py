"""The documentation covers what there is, and points to what exists.

`make docs` builds the site and checks its links; what can be known without building it is here.
"""

import importlib.util
import itertools
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
import typer
from torch import nn

import kao.diffusion
import kao.metrics
import kao.networks
from kao.cli import app
from kao.diffusion import SCHEDULES, Denoiser, Linear, SeededNoise, targets

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
API = DOCS / "api"
PAGES = sorted(DOCS.rglob("*.md"))
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def text(path):
    return path.read_text(encoding="utf-8")


def found(identifier):
    """The object of a dotted name."""
    parts = identifier.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise ImportError(identifier)


DOCUMENTED = {
    name: page for page in API.glob("*.md") for name in re.findall(r"^::: (\S+)", text(page), re.M)
}
REFERENCES = {
    (page.relative_to(DOCS), name)
    for page in PAGES
    for name in re.findall(r"\]\[(kao\.[\w.]+)\]", text(page))
}
REGISTRIES = [name for name in DOCUMENTED if isinstance(found(name), dict)]


# --- the reference -------------------------------------------------------------------------------


def test_what_the_reference_names_exists():
    for name in DOCUMENTED:
        found(name)


def test_a_page_refers_to_what_the_reference_has():
    missing = {
        (page, name)
        for page, name in REFERENCES
        if not any(name == known or name.startswith(f"{known}.") for known in DOCUMENTED)
    }
    assert REFERENCES and not missing


def in_the_reference(value, name):
    if isinstance(value, type(kao)):
        return any(known.startswith(f"{value.__name__}.") for known in DOCUMENTED)
    return any(found(k) is value for k in DOCUMENTED if k.rpartition(".")[2] == name)


@pytest.mark.parametrize("room", [kao.diffusion, kao.metrics, kao.networks])
def test_every_public_name_is_in_the_reference(room):
    assert not [name for name in room.__all__ if not in_the_reference(getattr(room, name), name)]


def test_the_reference_has_the_registries():
    assert {"SCHEDULES", "TARGETS", "SAMPLERS"} < {name.rpartition(".")[2] for name in REGISTRIES}


@pytest.mark.parametrize("name", REGISTRIES)
def test_every_entry_of_a_registry_is_named_beside_it(name):
    page = text(DOCUMENTED[name])
    assert not [entry for entry in found(name) if f"`{entry}`" not in page]


def test_every_command_and_option_is_on_the_page_of_the_command_line():
    page = text(API / "cli.md")
    sections = dict(re.findall(r"^## ([^\n]+)\n\n```text\n(.*?)^```", page, re.M | re.S))
    sections = {words.replace(" RUN", ""): said for words, said in sections.items()}
    missing = []

    def look(command, words):
        options = {option for parameter in command.params for option in parameter.opts}
        known = sections.get(words, "")
        missing.extend(
            f"{words} {option}" for option in options if "-" in option and option not in known
        )
        missing.extend([words] if not known else [])
        for name, below in getattr(command, "commands", {}).items():
            look(below, f"{words} {name}")

    look(typer.main.get_command(app), "kao")
    assert not missing, "python docs/make_cli.py"


# --- pages ---------------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"\S+\.md", text(ROOT / "mkdocs.yml"))
    assert sorted(listed) == [page.relative_to(DOCS).as_posix() for page in PAGES]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_its_figure(name):
    assert (DOCS / "pictures" / f"schedule-{name}.png").is_file(), "python docs/make_figures.py"
    assert f"(pictures/schedule-{name}.png)" in text(DOCS / "schedules.md")


def test_every_sampler_grid_and_threshold_is_told_what_it_is_for():
    page = text(DOCS / "choosing-a-sampler.md")
    names = [*kao.diffusion.SAMPLERS, *kao.diffusion.GRIDS, *kao.diffusion.THRESHOLDS]
    assert not [name for name in names if f"`{name}`" not in page]


def calls_a_step(sampler):
    """Network calls in the middle of a path, where a method with memory has found its stride."""
    called = []

    class Silent(nn.Module):
        def forward(self, x, label, condition):
            called.append(1)
            return 0 * x

    schedule = Linear().build()
    denoiser = Denoiser(Silent(), schedule, targets.v)
    x, memory, noise = torch.zeros(1, 3, 2, 2), None, SeededNoise([0])
    for t, s in itertools.pairwise(torch.linspace(900, 100, 9, dtype=torch.float64)):
        called.clear()
        x, memory = sampler.step(denoiser, x, t, s, noise=noise, memory=memory)
    return len(called)


def test_the_table_of_samplers_has_their_calls_and_orders():
    page = text(DOCS / "choosing-a-sampler.md")
    rows = re.findall(r"^\| `([^`]+)` \| (\d) \| (\d|-)(?: \(\d\))? \|", page, re.M)
    table = {name: (int(calls), int(order.replace("-", "0"))) for name, calls, order in rows}
    samplers = {name: entry() for name, entry in kao.diffusion.SAMPLERS.items()}
    assert table == {name: (calls_a_step(s), s.order) for name, s in samplers.items()}


def test_the_mathematics_has_every_schedule_target_weight_and_sampler():
    page = text(DOCS / "mathematics.md")
    rooms = ("SCHEDULES", "TARGETS", "WEIGHTS", "TIMES", "SAMPLERS")
    names = [name for room in rooms for name in getattr(kao.diffusion, room)]
    assert not [name for name in names if f"`{name}`" not in page]


def test_equations_are_numbered_in_order():
    numbers = re.findall(r"^(?:\S.*|\s+\S.*)  \((\d+)\)$", text(DOCS / "mathematics.md"), re.M)
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert len(numbers) > 10


def test_the_files_to_read_are_there():
    named = re.findall(r"`((?:tests/)?\w+/[\w/*]+(?:\.py|/))`", text(DOCS / "reading-the-code.md"))
    assert len(named) > 8
    assert not [n for n in named if not any(any(r.glob(n)) for r in (ROOT, ROOT / "src/kao"))]


def slug(heading):
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


def test_anchors_that_a_page_points_to_are_there():
    wrong = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*\.md)?#([\w-]+)\)", text(page)):
            there = text(page.parent / target if target else page)
            if anchor not in map(slug, re.findall(r"^#+ (.+)", there, re.M)):
                wrong.append((page.name, anchor))
    assert not wrong


# --- the bibliography ----------------------------------------------------------------------------

OTHERS = r"(?: et al\.| & [A-Z][\w-]+|(?:, [A-Z]\w+)+ & (?:Das )?[A-Z]\w+)"
YEAR = r"((?:19|20)\d\d[a-z]?)\b"
CITATIONS = (
    re.compile(rf"\b([A-Z][\w'-]+){OTHERS},? \(?{YEAR}"),
    re.compile(rf"\(([A-Z][\w'-]+) {YEAR}[,)]"),  # one author
    re.compile(rf"(?<!& )\b([A-Z][\w'-]+) \({YEAR}\)"),
)


def cited(path):
    flat = re.sub(r"\s*\n\s*(?:# )?", " ", text(path))
    return {match for pattern in CITATIONS for match in pattern.findall(flat)}


def test_citations_are_found():
    everywhere = {citation for path in SOURCES for citation in cited(path)}
    assert {("Nichol", "2021"), ("Ho", "2020"), ("Huber", "1964"), ("Chen", "2023")} <= everywhere


def test_whoever_is_cited_is_in_the_bibliography():
    entries = re.findall(
        r"^\* \*\*([\w'-]+).*? (\d{4})([a-z]?)\.\*\*", text(DOCS / "bibliography.md"), re.M
    )
    known = {(name, year + letter) for name, year, letter in entries}
    known |= {(name, year) for name, year, _ in entries}
    spelled = {(name.replace("ń", "n"), year) for name, year in known}
    unknown = {path: cited(path) - known - spelled for path in [*SOURCES, *PAGES]}
    assert not {path.name: names for path, names in unknown.items() if names}


# --- the check of the built site -----------------------------------------------------------------


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_site", DOCS / "check_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(folder, body):
    (folder / "below").mkdir()
    (folder / "index.html").write_text(f"<p id=top>{body}</p>", encoding="utf-8")
    (folder / "below" / "page.html").write_text("<a href=../index.html#top>", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "body",
    [
        "<a href='below/page.html'>",
        "<a href='#top'>",
        "<a href='https://example.org'>",
        "<img src='data:image/png;base64,AA=='>",
        "<a href='mailto:a@example.org'>",
    ],
)
def test_good_links_pass(check, body, tmp_path):
    assert not list(check.faults(built(tmp_path, body)))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<a href='gone.html'>", "gone.html is not there"),
        ("<a href='below/page.html#gone'>", "has no such anchor"),
        ("<img src='gone.png'>", "gone.png is not there"),
        ("<script src='https://example.org/x.js'></script>", "loads https://example.org/x.js"),
        ("<link rel=stylesheet href='//example.org/x.css'>", "loads //example.org/x.css"),
    ],
)
def test_broken_links_and_things_from_outside_are_found(check, body, words, tmp_path):
    (fault,) = check.faults(built(tmp_path, body))
    assert words in fault
