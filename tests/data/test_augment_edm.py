import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kao.data.augment import AugmentConfig, augment
from kao.data.augment_edm import AUGMENTATIONS, _points, draw_labels, sources, warp
from kao.data.toy_faces import ToyFaces

GROUPS = {
    "mirror": slice(0, 1),
    "upside down": slice(1, 2),
    "scale": slice(2, 3),
    "turn": slice(3, 5),
    "stretch": slice(5, 7),
    "shift": slice(7, 9),
}


def drawn(count, probability, seed=0, **options):
    return draw_labels(count, probability, torch.Generator().manual_seed(seed), **options)


def label(**groups):
    one = torch.zeros(1, AUGMENTATIONS)
    for name, values in groups.items():
        one[0, GROUPS[name.replace("_", " ")]] = torch.tensor(values)
    return one


def faces(count, size):
    source = ToyFaces(max(2, count), size=size)
    return torch.stack([torch.as_tensor(source[i].image) for i in range(count)])


def centres(size):
    return (2 * torch.arange(size) + 1) / size - 1


# --- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.12, 0.5, 1.0])
@pytest.mark.parametrize("name", GROUPS)
def test_each_transform_happens_as_often_as_it_is_asked_to(name, probability):
    share = (drawn(20_000, probability)[:, GROUPS[name]] != 0).any(1).float().mean()
    # A mirror that is drawn is the picture itself half of the time.
    expected = probability / 2 if name in ("mirror", "upside down") else probability
    assert share == pytest.approx(expected, abs=0.015)


def test_transforms_happen_independently_of_each_other():
    labels = drawn(20_000, 0.5)
    happens = torch.stack([(labels[:, at] != 0).any(1).float() for at in GROUPS.values()])
    assert (torch.corrcoef(happens) - torch.eye(6)).abs().max() < 0.03


def test_what_happens_is_drawn_as_published():
    labels = drawn(40_000, 1.0)
    for at in (2, 7, 8):
        assert labels[:, at].mean() == pytest.approx(0, abs=0.03)
        assert labels[:, at].std() == pytest.approx(1, abs=0.03)
    angles = torch.atan2(labels[:, 4], labels[:, 3] + 1)
    assert torch.histc(angles, 8, -math.pi, math.pi).sub(5000).abs().max() < 300
    # Half of the stretches lie along the axes; the length of the rest is that of the others.
    axes = labels[:, 6] == 0
    assert axes.float().mean() == pytest.approx(0.5, abs=0.01)
    for chosen in (axes, ~axes):
        lengths = labels[chosen, 5:7].norm(dim=1)
        assert lengths.square().mean() == pytest.approx(1, abs=0.05)


def test_nothing_is_drawn_at_probability_zero():
    assert not drawn(1000, 0.0).any()


def test_labels_follow_the_seed():
    assert torch.equal(drawn(50, 0.3, 1), drawn(50, 0.3, 1))
    assert not torch.equal(drawn(50, 0.3, 1), drawn(50, 0.3, 2))


def test_a_mirror_that_is_decided_is_told():
    mirrored = torch.arange(50) % 3 == 0
    labels = drawn(50, 0.0, mirrored=mirrored)
    assert torch.equal(labels[:, 0], mirrored.float()) and not labels[:, 1:].any()


def test_with_edm_each_picture_is_mirrored_half_of_the_time_and_none_untold():
    images = faces(1, 16).expand(400, -1, -1, -1)
    draws = AugmentConfig(flip=True, edm=1e-9).draw(400, torch.Generator().manual_seed(0))
    changed = (augment(images, draws) != images).flatten(1).any(1)
    assert torch.equal(changed, draws.labels.any(1))
    assert 160 < changed.sum() < 240


# --- what a label says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "p", "comes_from"),
    [
        (label(), (0.3, -0.6), (0.3, -0.6)),
        (label(scale=[5.0]), (0.3, -0.6), (0.15, -0.3)),
        (label(turn=[-1.0, 1.0]), (-0.6, 0.3), (0.3, 0.6)),
        (label(stretch=[5.0, 0.0]), (0.3, -0.6), (0.15, -1.2)),
        (label(stretch=[-5.0, 0.0]), (0.3, -0.6), (0.6, -0.3)),
        (label(stretch=[0.0, 5.0]), (0.4, 0.4), (0.2, 0.2)),
        (label(stretch=[0.0, 5.0]), (0.4, -0.4), (0.8, -0.8)),
        (label(shift=[1.0, -2.0]), (0.3, -0.6), (0.05, -0.1)),
        (label(scale=[5.0], shift=[1.0, -2.0]), (0.3, -0.6), (0.025, -0.05)),
        (label(scale=[-5.0], turn=[-1.0, 1.0]), (-0.6, 0.3), (0.6, 1.2)),
        (label(turn=[-1.0, 1.0], stretch=[5.0, 0.0]), (-0.6, 0.3), (0.6, 0.3)),
    ],
)
def test_a_label_says_where_each_point_comes_from(said, p, comes_from):
    """Twice as large, a quarter turn clockwise, twice as wide, an eighth of the side to the right.

    With x to the right and y downwards, clockwise is from x to y: what is seen at (-0.6, 0.3) was
    at (0.3, 0.6) before.
    """
    found = sources(said.double())[0] @ torch.tensor([*p, 1.0], dtype=torch.float64)
    assert found.tolist() == pytest.approx(comes_from, abs=1e-6)


def composed(one):
    """T A R S as a matrix on (x, y, 1), written out anew, factor by factor."""
    _, _, a, cos_less_1, sin, plus, cross, e, f = one.double().tolist()
    cos, c, d = cos_less_1 + 1, math.hypot(plus, cross), math.atan2(cross, plus) / 2

    def rows(*values):
        matrix = torch.eye(3, dtype=torch.float64)
        matrix[:2] = torch.tensor(values, dtype=torch.float64).reshape(2, 3)
        return matrix

    def turn(cos, sin):
        return rows(cos, -sin, 0, sin, cos, 0)

    scale, stretch = 2 ** (0.2 * a), 2 ** (0.2 * c)
    along = turn(math.cos(d), math.sin(d))
    shifted, scaled = rows(1, 0, e / 4, 0, 1, f / 4), rows(scale, 0, 0, 0, scale, 0)
    stretched = along @ rows(stretch, 0, 0, 0, 1 / stretch, 0) @ along.T
    return shifted @ stretched @ turn(cos, sin) @ scaled


def test_what_is_undone_is_what_was_done():
    labels = drawn(200, 0.7)
    for one, back in zip(labels, sources(labels.double()), strict=True):
        expected = torch.linalg.inv(composed(one))[:2]
        torch.testing.assert_close(back, expected, atol=1e-6, rtol=1e-5)


def test_two_labels_never_stand_for_one_warp():
    """Else a network that is told the label would be told less than was done, or more."""
    maps = sources(drawn(300, 1.0).double()).flatten(1)
    assert torch.cdist(maps, maps).fill_diagonal_(1).min() > 1e-4


def test_pixels_come_from_where_the_label_says():
    """Of a picture whose colours are the coordinates of its pixels."""
    size = 64
    x, y = torch.meshgrid(centres(size), centres(size), indexing="xy")
    ramp = torch.stack([x, y, torch.zeros_like(x)]).add(1).mul(127.5).round().to(torch.uint8)
    labels = drawn(200, 0.7)
    shown = warp(ramp.expand(200, -1, -1, -1), labels).float() / 127.5 - 1

    points = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    expected = (sources(labels) @ points).unflatten(2, (size, size))
    inside = (expected.abs() < 1 - 4 / size).all(1)
    expected = expected * (1 - 2 * labels[:, :2, None, None])
    error = (shown[:, :2] - expected).abs().amax(1)
    assert inside.float().mean() > 0.5
    assert error[inside].max() < 0.02


def test_what_lies_beyond_the_edges_is_a_reflection():
    images = faces(1, 32)
    shown = warp(images, label(shift=[2.0, 0.0]))
    assert torch.equal(shown[..., 8:], images[..., :24])
    assert torch.equal(shown[..., :8], images[..., :8].flip(-1))


# --- what comes out -----------------------------------------------------------------------------


def test_pictures_with_a_label_of_zeros_keep_their_bytes():
    images = faces(60, 16)
    labels = drawn(60, 0.12)
    zero = ~labels.any(1)
    shown = warp(images, labels)
    assert 10 < zero.sum() < 50
    assert torch.equal(shown[zero], images[zero])
    assert (shown != images).flatten(1).any(1)[~zero].all()


def test_mirrored_pictures_are_the_same_bytes_in_another_order():
    images = faces(1, 16)
    assert torch.equal(warp(images, label(mirror=[1.0])), images.flip(-1))
    assert torch.equal(warp(images, label(upside_down=[1.0])), images.flip(-2))
    both = label(mirror=[1.0], upside_down=[1.0])
    assert torch.equal(warp(images, both), images.flip(-1, -2))


def test_a_quarter_turn_moves_bytes_and_changes_none():
    images = faces(1, 16)
    assert torch.equal(warp(images, label(turn=[-1.0, 1.0])), images.rot90(-1, (-2, -1)))


def test_a_picture_of_one_colour_keeps_it():
    grey = torch.full((100, 3, 16, 16), 77, dtype=torch.uint8)
    assert torch.equal(warp(grey, drawn(100, 1.0)), grey)


def test_the_batch_that_came_in_is_left_alone():
    images = faces(8, 16)
    before = images.clone()
    warp(images, drawn(8, 1.0))
    assert torch.equal(images, before)


def test_each_picture_is_warped_for_itself():
    images, labels = faces(12, 16), drawn(12, 0.5)
    alone = [warp(images[i : i + 1], labels[i : i + 1]) for i in range(12)]
    assert torch.equal(torch.cat(alone), warp(images, labels))


def test_points_are_those_of_the_matrices_to_rounding():
    matrices = sources(drawn(50, 1.0))
    reference = F.affine_grid(matrices.double(), [50, 3, 12, 12], align_corners=False)
    torch.testing.assert_close(_points(matrices, 12).double(), reference, rtol=1e-5, atol=1e-5)


def test_pictures_are_warped_without_a_matrix_product_that_a_gpu_would_round():
    """On "meta" for a GPU: the labels' own matrices are multiplied on the CPU."""
    met = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.device.type == "meta":
                met.add(function.overloadpacket.__name__)
            return out

    with Watch():
        warp(torch.empty(6, 3, 8, 8, dtype=torch.uint8, device="meta"), drawn(6, 1.0))
    assert {"mul", "add", "index_copy"} <= met
    assert not {"affine_grid_generator", "bmm", "mm", "addmm", "baddbmm"} & met
