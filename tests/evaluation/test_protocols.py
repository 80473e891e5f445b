import pytest
import torch

from kao.diffusion import DDIM, Ancestral, Heun
from kao.errors import ConfigError
from kao.evaluation import PROTOCOLS, Parts, PictureSet, Plan, overlap, protocol_of
from kao.evaluation.opening import open_spaces
from kao.evaluation.planning import asked_protocol, check_defined, check_names
from kao.metrics import METRICS, SPACES


def numbered(count):
    """Pictures that differ, each in its number."""
    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count) % 256
    images[:, 1, 0, 0] = torch.arange(count) // 256
    return PictureSet.of("numbered", images)


def test_every_protocol_can_be_planned():
    for name, protocol in PROTOCOLS.items():
        plan = Plan.of(protocol)
        assert protocol.name == name
        assert {space for _, space in plan.pairs} <= set(SPACES)
        assert {metric for metric, _ in plan.pairs} <= set(METRICS)


def test_protocols_are_those_of_their_papers():
    ddpm, ddim = protocol_of("ddpm-50k"), protocol_of("ddim-table")
    assert (ddpm.n, ddpm.steps, ddpm.resize) == (50_000, 1_000, "legacy")
    assert isinstance(ddpm.sampler, Ancestral)
    assert (ddim.n, ddim.steps, ddim.sampler) == (50_000, 50, DDIM(eta=0.0))
    assert (protocol_of("clean-fid").resize, protocol_of("clean-fid").all_of_folders) == (
        "clean",
        True,
    )


def test_the_default_protocol_needs_no_download():
    assert set(Plan.of(protocol_of("small-data")).spaces) <= {"faces", "wavelets"}


def test_what_is_asked_for_otherwise_is_in_the_name():
    protocol = protocol_of("ddim-table")
    assert protocol.changed(n=50_000, steps=50).name == "ddim-table"
    assert protocol.changed(steps=10).name == "ddim-table+steps10"
    changed = protocol.changed(n=500, steps=10, sampler=("heun", Heun()))
    assert changed.name == "ddim-table+n500+heun+steps10"
    assert (changed.n, changed.steps, changed.sampler) == (500, 10, Heun())
    assert protocol.changed(metrics=["kid"]).name == "ddim-table"
    assert protocol_of("clean-fid").changed(n=50_000).all_of_folders is False


def test_a_metric_is_measured_in_each_space_that_it_is_defined_in():
    protocol = protocol_of("small-data").changed(
        metrics=["kernel", "fid", "drift"], features=["faces", "wavelets"]
    )
    plan = Plan.of(protocol)
    assert plan.pairs == (("kernel", "faces"), ("kernel", "wavelets"), ("fid", "inception"))
    assert plan.others == ("drift",)
    assert plan.spaces == ("faces", "wavelets", "inception")


def test_what_a_user_asks_for_becomes_a_protocol():
    asked = asked_protocol(
        "ddim-table", n=9, steps=3, sampler="heun", metrics=["kid"], features=["inception"]
    )
    assert asked.name == "ddim-table+n9+heun+steps3"
    assert (asked.metrics, asked.features) == (("kid",), ("inception",))
    with pytest.raises(ConfigError, match=r'no sampler "huen" \(did you mean "heun"\?\)'):
        asked_protocol("ddim-table", sampler="huen")


def test_spaces_are_opened_as_the_protocol_resizes(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "kao.evaluation.opening.open_space",
        lambda name, *, resize, **others: asked.append((name, resize)),
    )
    for name in ("ddpm-50k", "clean-fid"):
        open_spaces(protocol_of(name))
    assert asked == [("inception", "legacy"), ("inception", "clean")]


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r'no protocol "ddpm50k" \(did you mean "ddpm-50k"\?\)'):
        protocol_of("ddpm50k")
    with pytest.raises(ConfigError, match=r'no metric "kidd" \(did you mean "kid"\?\)'):
        check_names(metrics=["kidd"])
    with pytest.raises(ConfigError, match=r'space "face" \(did you mean "faces"\?\)'):
        check_names(features=["face"])
    with pytest.raises(ConfigError, match="--metrics lpips"):
        check_names(features=["lpips"])
    with pytest.raises(ConfigError, match='"fid" is not defined in the space faces, only in incep'):
        check_defined(["kernel", "fid"], ["faces"])
    with pytest.raises(ConfigError, match="n = 0"):
        protocol_of("small-data").changed(n=0)


def test_where_there_are_enough_real_pictures_some_are_kept_out_of_the_reference():
    real = numbered(50)
    parts = Parts.of(real, protocol_of("small-data"), n=20, seed=0)
    assert (len(parts.reference), len(parts.fresh)) == (30, 20)
    assert parts.fingerprint == parts.pictures.take(parts.reference).fingerprint
    assert parts.beside is parts.reference
    kept = [parts.pictures.take(part) for part in (parts.reference, parts.fresh)]
    assert not overlap(*kept).any()


def test_where_there_are_few_the_reference_is_all_and_the_floor_of_halves():
    parts = Parts.of(numbered(30), protocol_of("small-data"), n=20, seed=0)
    assert (len(parts.reference), len(parts.fresh), len(parts.beside)) == (30, 15, 15)
    assert not set(parts.fresh.tolist()) & set(parts.beside.tolist())


def test_the_reference_of_a_paper_is_the_whole_set():
    parts = Parts.of(numbered(300), protocol_of("ddpm-50k"), n=20, seed=0)
    assert (len(parts.reference), len(parts.fresh), len(parts.beside)) == (300, 20, 280)


def test_parts_follow_from_the_pictures_and_the_seed_alone():
    real = numbered(50)
    turned = PictureSet.of("turned", real.images.flip(0))
    protocol = protocol_of("small-data")

    def reference(pictures, seed):
        parts = Parts.of(pictures, protocol, n=20, seed=seed)
        return parts.pictures.take(parts.reference).fingerprint

    assert reference(real, 0) == reference(turned, 0)
    assert reference(real, 0) != reference(real, 1)
