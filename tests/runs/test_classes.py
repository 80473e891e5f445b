"""Runs that are told the classes of their pictures, and what they draw."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import kao
from kao.checkpoints import Checkpoint
from kao.cli import app
from kao.config import RunConfig, SamplingConfig
from kao.config.conditioning import ConditionsConfig
from kao.config.sampling import GuidanceConfig
from kao.config.sections import DataConfig
from kao.data.toy_faces import CLASSES
from kao.diffusion import Ancestral, Denoiser, Linear, targets
from kao.errors import ConfigError
from kao.evaluation import protocol_of
from kao.pixels import to_uint8
from kao.processes import ALONE
from kao.reports.page import write_report
from kao.runs import Ask, draw, finish, guided, open_session, with_sampling
from kao.runs.classes import in_shares, labels_of, with_classes
from kao.runs.evaluating import subject_of_run
from kao.runs.guiding import guides, sampling_table
from kao.runs.held_out import HeldOut
from kao.runs.hooks import in_columns
from kao.runs.planning import plan
from kao.runs.run import load_worse
from kao.tracking import read_events
from kao.visualisation import save_pictures

CPU = torch.device("cpu")
CATS_AND_DOGS = ConditionsConfig(True, ("cat", "dog"), (3, 1))


# --- the order of the classes -------------------------------------------------------------------


def test_classes_of_equal_size_come_in_turn():
    assert in_shares([7, 7, 7], 7).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_class_comes_as_often_as_its_share_says():
    assert in_shares([3, 1], 8).tolist() == [0, 0, 1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("counts", [(5, 3), (1000, 1), (17, 4, 9, 2), (1,) * 40, (2, 0, 5)])
def test_any_first_pictures_have_the_shares_to_within_one(counts):
    order = in_shares(counts, 300)
    for n in (1, 2, 10, 64, 300):
        assert in_shares(counts, n).tolist() == order[:n].tolist()
        met = Counter(order[:n].tolist())
        for label, count in enumerate(counts):
            assert abs(met[label] - n * count / sum(counts)) <= 1
    assert not any(counts[label] == 0 for label in order)


def test_a_picture_has_the_class_of_its_index():
    all_, some = labels_of(CATS_AND_DOGS, range(20)), labels_of(CATS_AND_DOGS, [9, 2, 5])
    assert torch.equal(some, all_[[9, 2, 5]])
    assert labels_of(replace(CATS_AND_DOGS, counts=()), range(4)).tolist() == [0, 1, 0, 1]


def test_classes_that_are_asked_for_come_in_turn_by_index():
    assert labels_of(CATS_AND_DOGS, range(3), classes=["dog"]).tolist() == [1, 1, 1]
    assert labels_of(CATS_AND_DOGS, [0, 3, 4], classes=["dog", "cat"]).tolist() == [1, 0, 1]


def test_a_class_that_is_not_known_is_told_the_near_miss_and_all_names():
    with pytest.raises(ConfigError) as caught:
        labels_of(CATS_AND_DOGS, [0], classes=["cats"])
    said = 'The model knows no class "cats" (did you mean "cat"?); its classes are cat, dog.'
    assert str(caught.value) == said


def test_a_model_that_is_told_no_classes_draws_none_that_is_asked_for():
    assert labels_of(ConditionsConfig(), range(3)) is None
    with pytest.raises(ConfigError, match=r'class "cat" is asked for, and this model is told no'):
        labels_of(ConditionsConfig(), [0], classes=["cat"])


@pytest.mark.parametrize(
    ("names", "met"), [((), "has no two such folders"), (("cat",), "has one class alone, cat")]
)
def test_pictures_without_two_classes_are_refused(names, met):
    config = RunConfig(data=DataConfig(source="faces/"), conditions=ConditionsConfig(True))
    with pytest.raises(ConfigError, match=rf"faces/ {met}: put the pictures of each class into a"):
        with_classes(config, names)
    untold = replace(config, conditions=ConditionsConfig())
    assert with_classes(untold, names) is untold


def test_few_classes_have_columns_of_their_own():
    assert in_columns(2, pictures=64) == 8
    assert in_columns(3, pictures=64) == 9
    assert in_columns(5, pictures=64) == 10
    assert in_columns(2, pictures=2) == 2
    assert in_columns(40, pictures=64) is None
    assert in_columns(0, pictures=64) is None


# --- guidance by classes: a network whose answer is known ---------------------------------------


class Known(nn.Module):
    """Says a number for each class and one for none, whatever it sees."""

    def __init__(self):
        super().__init__()
        self.says = nn.Parameter(torch.tensor([0.1, -0.2, 0.05]))

    def forward(self, x, label, condition):
        number = torch.full((len(x),), 2)
        if condition is not None and condition.label is not None:
            number = condition.label
        return self.says[number].reshape(-1, 1, 1, 1).expand_as(x)


CONFIG = RunConfig(
    data=DataConfig(size=8),
    schedule=Linear(),
    conditions=CATS_AND_DOGS,
    sampling=SamplingConfig(threshold=None),
)
X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor(400.0, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0])


def known(target=targets.eps):
    return Denoiser(Known(), CONFIG.schedule.build(), target).requires_grad_(False)


def guiding(scale, **options):
    guidance = GuidanceConfig(scale=scale, **options)
    return replace(CONFIG, sampling=replace(CONFIG.sampling, guidance=guidance))


def test_at_scale_one_the_model_is_the_one_that_is_told_the_class():
    x0 = guided(known(targets.x0), CONFIG, labels=LABELS)(X, T).x0
    torch.testing.assert_close(x0[:, 0, 0, 0], torch.tensor([0.1, -0.2, 0.1]))


@pytest.mark.parametrize("target", [targets.eps, targets.v, targets.x0])
@pytest.mark.parametrize("scale", [0.0, 1.5, 4.0])
def test_guidance_goes_from_no_class_through_the_class(target, scale):
    model = known(target)
    c, u = (guided(model, CONFIG, labels=labels)(X, T) for labels in (LABELS, None))
    ours = guided(model, guiding(scale), labels=LABELS)(X, T)
    for name in ("x0", "eps"):
        told, silent = getattr(c, name), getattr(u, name)
        torch.testing.assert_close(getattr(ours, name), silent + scale * (told - silent))


def test_interval_and_rescaling_work_as_with_a_worse_model():
    model = known()
    plain = guided(model, CONFIG, labels=LABELS)(X, T)
    outside = guided(model, guiding(3.0, interval=(0.0, 1e-3)), labels=LABELS)(X, T)
    assert torch.equal(outside.x0, plain.x0)
    rescaled = guided(model, guiding(3.0, rescale=1.0), labels=LABELS)(X, T).x0
    torch.testing.assert_close(rescaled.std((1, 2, 3)), plain.x0.std((1, 2, 3)))


def test_where_no_class_is_told_there_is_none_to_guide_to():
    silent = guided(known(), guiding(3.0))(X, T)
    assert torch.equal(silent.x0, guided(known(), CONFIG)(X, T).x0)


def test_a_scale_that_goes_away_from_nothing_is_refused():
    untold = replace(CONFIG, conditions=ConditionsConfig())
    undropped = replace(CONFIG, conditions=replace(CATS_AND_DOGS, drop=0.0))
    strong = SamplingConfig(guidance=GuidanceConfig(scale=2.0))
    with pytest.raises(ConfigError, match=r"scale = 2\.0 goes away from a worse model, and none"):
        with_sampling(untold, strong)
    with pytest.raises(ConfigError, match=r"does not learn with conditions\.drop = 0: train with"):
        with_sampling(undropped, strong)
    assert guides(with_sampling(CONFIG, strong)) and not guides(CONFIG)


# --- a run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tiny):
    return (
        *tiny,
        "conditions.classes=true",
        "conditions.drop=0.25",
        "hooks.checkpoints=8",
        "hooks.samples=16",
        "hooks.pictures=10",
    )


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    """Four steps of four pictures, with classes."""
    path = tmp_path_factory.mktemp("runs") / "told"
    return kao.train("toy:12", run=path, recipe="toy-32", length="4 steps", overrides=words)


@pytest.fixture(scope="module")
def denoiser(run):
    """A model to which classes make a difference: four steps leave it close to zero."""
    model = run.denoiser()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def drawn(denoiser, config, indices, **more):
    return torch.cat(list(draw(denoiser, config, indices=indices, **more)))


def apart(a, b):
    """The largest difference, in levels of 255."""
    return (a.int() - b.int()).abs().max()


def test_run_toml_names_the_classes_and_counts_their_pictures(run):
    told = run.config.conditions
    assert (told.classes, told.names, told.drop) == (True, CLASSES, 0.25)
    assert sum(told.counts) == 12 and len(told.counts) == len(CLASSES)


def test_a_picture_is_the_same_whatever_is_drawn_beside_it(run, denoiser):
    config = run.drawing()
    six = drawn(denoiser, config, range(6))
    assert apart(six, drawn(denoiser, config, range(6), batch=4)) <= 1
    assert apart(six[[5, 2]], drawn(denoiser, config, [5, 2])) <= 1


def test_each_picture_is_drawn_of_its_class(run, denoiser):
    config = run.drawing()
    six, labels = drawn(denoiser, config, range(6)), labels_of(config.conditions, range(6))
    of_class = [drawn(denoiser, config, range(6), classes=[name]) for name in CLASSES]
    assert len(set(labels.tolist())) > 1
    for i, label in enumerate(labels.tolist()):
        for other, pictures in enumerate(of_class):
            assert (apart(six[i], pictures[i]) <= 1) == (other == label)


def test_guidance_by_classes_changes_the_pictures_and_so_does_each_option(run, denoiser):
    config = with_sampling(run.config, SamplingConfig(sampler=Ancestral(), steps=5))
    ways = [
        GuidanceConfig(),
        GuidanceConfig(scale=3.0),
        GuidanceConfig(scale=1.5),
        GuidanceConfig(scale=3.0, interval=(0.5, 5.0)),
        GuidanceConfig(scale=3.0, rescale=1.0),
    ]
    pictures = [
        drawn(denoiser, replace(config, sampling=replace(config.sampling, guidance=way)), range(2))
        for way in ways
    ]
    for i, one in enumerate(pictures):
        assert all(apart(one, other) > 1 for other in pictures[:i])


def test_the_library_and_the_command_line_draw_the_classes_that_are_asked_for(run, tmp_path):
    asked = list(CLASSES[1::-1])
    by_library = kao.sample(run, n=3, classes=asked)
    assert torch.equal(by_library, drawn(run.denoiser(), run.drawing(), range(3), classes=asked))
    assert torch.equal(kao.sample(run, n=2, classes=asked[0])[0], by_library[0])
    file = tmp_path / "drawn.npz"
    words = ["sample", str(run.path), "-n", "3", "--npz", str(file)]
    words += [word for name in asked for word in ("--class", name)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    import numpy as np

    with np.load(file) as kept:
        (array,) = kept.values()
    assert torch.equal(torch.from_numpy(array).permute(0, 3, 1, 2), by_library)


def test_the_grids_of_a_run_show_each_class_in_turn(run):
    (told,) = {tuple(e["classes"]) for e in read_events(run.path) if e["event"] == "samples"}
    assert told == CLASSES
    page = write_report(run.path).read_text()
    assert f"Its columns show in turn: {', '.join(CLASSES)}." in page


def test_an_evaluation_knows_of_which_class_each_picture_was_drawn(run):
    subject = subject_of_run(run, protocol_of("small-data").changed(n=5, steps=2))
    pictures = subject.drawn(ALONE, lambda done, total: None)
    assert pictures.classes == CLASSES
    assert torch.equal(pictures.labels, labels_of(run.config.conditions, range(5)))
    assert subject.drawing.sampling == sampling_table(replace(run.config.sampling, steps=2), None)


def test_a_run_that_is_taken_up_ends_with_the_same_bytes(words, run, tmp_path):
    ask = Ask(tmp_path / "cut", "toy:12", "toy-32", words, {"length": "4 steps"})
    session = open_session(ask, CPU)
    for _ in session.trainer.steps():
        session.trainer.stop()
    finish(session)
    assert session.trainer.progress.images == 4
    session = open_session(ask, CPU)
    assert session.resumed == 4
    for _ in session.trainer.steps():
        pass
    finish(session)
    ends = [Checkpoint.all(path)[-1].path / "model.safetensors" for path in (ask.run, run.path)]
    assert ends[0].read_bytes() == ends[1].read_bytes()


@pytest.mark.parametrize("change", ["conditions.classes=false", "conditions.drop=0.5"])
def test_what_is_told_does_not_change_when_a_run_goes_on(words, run, change):
    ask = Ask(run.path, "toy:12", "toy-32", (*words, change), {"length": "4 steps"})
    with pytest.raises(ConfigError, match=rf"belongs to another configuration: .*{change[:15]}"):
        open_session(ask, CPU)


def test_a_branch_is_told_the_same_classes(words, run, tmp_path):
    change = (*words, "conditions.classes=false")
    ask = Ask(run.path, "toy:12", "toy-32", change, branch=tmp_path / "branch")
    with pytest.raises(ConfigError, match=r"conditions\.classes = True there and False now"):
        open_session(ask, CPU)


def test_classes_that_have_other_names_now_are_told_of(words, run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "run")
    for file in (copy / "run.toml", *copy.glob("checkpoints/*/run.toml")):
        file.write_text(file.read_text().replace(f'"{CLASSES[0]}"', '"others"'))
    ask = Ask(copy, "toy:12", "toy-32", words, {"length": "4 steps"})
    with pytest.raises(ConfigError, match=r"the classes of toy:12 have changed since it began"):
        open_session(ask, CPU)


def test_a_set_without_classes_is_refused_before_it_is_prepared(words, tmp_path, monkeypatch):
    grey = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    save_pictures(grey, tmp_path / "faces", names=list("abcd"))

    def never(*args, **more):
        raise AssertionError("prepared")

    monkeypatch.setattr("kao.runs.deciding.prepare", never)
    ask = Ask(tmp_path / "run", str(tmp_path / "faces"), "toy-32", words)
    for attempt in (open_session, plan):
        with pytest.raises(ConfigError, match=r"conditions\.classes = true tells the network"):
            attempt(ask, CPU)


def test_a_plan_names_the_classes(words, tmp_path):
    ask = Ask(tmp_path / "run", "toy:12", "toy-32", words)
    assert plan(ask, CPU).conditions.names == CLASSES


def test_a_run_told_of_classes_is_guided_by_one_told_of_the_same(run, tiny_run, tmp_path):
    def by(worse):
        guidance = GuidanceConfig(worse=str(worse), scale=2.0)
        return replace(run.config, sampling=replace(run.config.sampling, guidance=guidance))

    assert load_worse(by(run.path), device=CPU) is not None
    with pytest.raises(ConfigError, match=r"is told no classes, and the model that it should"):
        load_worse(by(tiny_run), device=CPU)
    copy = shutil.copytree(run.path, tmp_path / "run")
    text = (copy / "run.toml").read_text()
    (copy / "run.toml").write_text(text.replace(f'"{CLASSES[0]}"', '"others"'))
    with pytest.raises(ConfigError, match=r"is told the classes others, .* name one that is told"):
        load_worse(by(copy), device=CPU)


def test_the_held_out_loss_tells_the_class_of_every_picture(words, run, tmp_path):
    ask = Ask(
        tmp_path / "run", "toy:12", "toy-32", (*words, "data.held_out=3"), {"length": "4 steps"}
    )
    session = open_session(ask, CPU)
    seen, objective = [], session.trainer.gradients.objective
    forward = objective.forward

    def watched(x0, conditions, drawn):
        seen.append((to_uint8(x0), conditions.label))
        return forward(x0, conditions, drawn)

    objective.forward = watched
    HeldOut(session.prepared, session.tracker, held_out=3, every=8)(session.trainer)
    finish(session)
    own = {
        image.tobytes(): int(label)
        for image, label in zip(session.prepared.images, session.prepared.labels, strict=True)
    }
    assert len(seen) > 0
    for pictures, labels in seen:
        assert [own[p.numpy().tobytes()] for p in pictures] == labels.tolist()


# --- learning -----------------------------------------------------------------------------------


def test_a_model_that_was_told_dark_from_bright_draws_what_is_asked_for(tiny, tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name, grey in (("bright", 200), ("dark", 60)):
        shades = torch.randint(grey - 30, grey + 31, (16, 3, 1, 1), generator=generator)
        pictures = shades.expand(-1, -1, 8, 8).to(torch.uint8)
        save_pictures(pictures, tmp_path / "faces" / name, names=[str(i) for i in range(16)])
    run = kao.train(
        tmp_path / "faces",
        run=tmp_path / "run",
        recipe="toy-32",
        length="200 steps",
        overrides=(
            *tiny,
            "conditions.classes=true",
            "data.size=8",
            "network.levels=[1]",
            "network.blocks=1",
            "optimizer.method=adamw",
            "optimizer.rate=1e-2",
            "optimizer.schedule.warmup=160",
            "training.batch=16",
            "ema.decay=0.9",
            "sampling.steps=6",
            "hooks.samples=100000",
        ),
    )
    bright, dark, either = (
        kao.sample(run, n=12, classes=names).double().mean((1, 2, 3))
        for names in ("bright", "dark", ())
    )
    assert (bright > 150).all() and (dark < 110).all()
    assert torch.equal(either > 128, torch.tensor([True, False] * 6))
