import io
import zipfile

import numpy as np
import pytest
import torch

from kao.errors import DataError
from kao.metrics import METRICS, Sight, load_reference, reference_of, save_reference


def sight(n, *, width=4, seed=0, space="inception-test", classes=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, width, generator=generator)
    probabilities = torch.rand(n, classes, generator=generator).softmax(1) if classes else None
    return Sight(space, features, probabilities)


def reference(keep=0, **how):
    return reference_of(
        sight(50, **how), resize="clean bicubic to 299", fingerprint="f00d", keep=keep
    )


def test_what_is_saved_is_read_again(tmp_path):
    made = reference(keep=20, classes=3)
    save_reference(tmp_path / "real.npz", made)
    read = load_reference(tmp_path / "real.npz")
    assert (read.space, read.resize, read.fingerprint) == (made.space, made.resize, "f00d")
    assert read.gaussian.n == 50
    assert torch.equal(read.gaussian.mean, made.gaussian.mean)
    torch.testing.assert_close(read.gaussian.cov, made.gaussian.cov, rtol=1e-15, atol=1e-16)
    assert torch.equal(read.sight.features, made.sight.features)
    assert torch.equal(read.sight.probabilities, made.sight.probabilities)
    assert len(read.sight) == 20
    assert read.whole is None


def test_saved_or_not_it_gives_the_same_scores(tmp_path):
    made, drawn = reference(keep=50), sight(40, seed=1)
    save_reference(tmp_path / "real.npz", made)
    read = load_reference(tmp_path / "real.npz")
    for name in ("fid", "fid_infinity", "kid"):
        (expected,), (found,) = METRICS[name](sight(50), drawn), METRICS[name](read, drawn)
        assert found.value == pytest.approx(expected.value, rel=1e-9)
        assert found.error == pytest.approx(expected.error, rel=1e-9)


def test_other_tools_read_ours(tmp_path):
    """pytorch-fid and clean-fid look up `mu` and `sigma`, in float64."""
    save_reference(tmp_path / "real.npz", reference())
    with np.load(tmp_path / "real.npz") as arrays:
        assert arrays["mu"].shape == (4,)
        assert arrays["sigma"].shape == (4, 4)
        assert arrays["mu"].dtype == arrays["sigma"].dtype == np.float64
        features = sight(50).features.numpy().astype(np.float64)
        np.testing.assert_allclose(arrays["sigma"], np.cov(features, rowvar=False), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_theirs_are_read(tmp_path, dtype):
    """Mean and covariance alone, as pytorch-fid, clean-fid and EDM write them."""
    real = sight(50)
    arrays = {"mu": real.gaussian.mean.numpy(), "sigma": real.gaussian.cov.numpy()}
    np.savez(tmp_path / "cifar10.npz", **{key: a.astype(dtype) for key, a in arrays.items()})
    read = load_reference(tmp_path / "cifar10.npz")
    assert (read.space, read.resize, read.fingerprint, read.gaussian.n) == (None,) * 4
    (score,) = METRICS["fid"](read, sight(40, seed=1))
    (expected,) = METRICS["fid"](real, sight(40, seed=1))
    assert score.value == pytest.approx(expected.value, rel=1e-5)
    assert score.error == score.own_error


def test_kept_features_are_a_random_part():
    kept = reference(keep=20).sight.features
    everything = sight(50).features
    at = [int((everything == row).all(1).nonzero()) for row in kept]
    assert at == sorted(at)
    assert at != list(range(20))
    other = reference_of(sight(50), resize="", fingerprint="", keep=20, seed=1).sight.features
    assert not torch.equal(other, kept)


def test_a_metric_of_features_says_that_a_reference_has_none():
    with pytest.raises(DataError, match=r"^KID needs the features .* mean and covariance only"):
        METRICS["kid"](reference(), sight(40, seed=1))


def test_another_feature_network_is_refused():
    drawn = sight(40, seed=1, space="inception-other")
    with pytest.raises(
        DataError, match=r'made in the feature space "inception-test".*"inception-o'
    ):
        METRICS["fid"](reference(), drawn)
    narrow = sight(40, seed=1, width=3)
    with pytest.raises(
        DataError, match=r"^This reference has 4 dimensions, .* have 3.*, so make one"
    ):
        METRICS["fid"](reference(), narrow)


def test_another_way_to_resize_is_refused():
    with pytest.raises(
        DataError, match=r'resized by "clean bicubic to 299", and these by "TF1.*: take'
    ):
        reference().check(space="inception-test", width=4, resize="TF1 bilinear to 299")
    reference().check(space="inception-test", width=4, resize="clean bicubic to 299")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(DataError, match=r'^There is no reference file ".*real.npz"'):
        load_reference(tmp_path / "real.npz")


def test_a_name_of_another_kind_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r'real.pkl is no name for a reference file: end it in ".np'
    ):
        save_reference(tmp_path / "real.pkl", reference())


def whole():
    file = io.BytesIO()
    np.savez(file, mu=np.zeros(3), sigma=np.eye(3))
    return file.getvalue()


def flipped():
    data = bytearray(whole())
    data[len(data) // 3] ^= 0xFF
    return bytes(data)


def pickled():
    file = io.BytesIO()
    np.savez(file, mu=np.array([{}], dtype=object), sigma=np.eye(3))
    return file.getvalue()


def lone():
    file = io.BytesIO()
    np.save(file, np.eye(3))
    return file.getvalue()


def text_in_a_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mu.npy", "not an array")
        archive.writestr("sigma.npy", "not an array")
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive", whole()[:-40], flipped(), pickled(), lone()],
    ids=["empty", "text", "cut short", "bytes changed", "pickles", "an array alone"],
)
def test_a_damaged_file_is_said(tmp_path, content):
    (tmp_path / "real.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"real.npz cannot be read as a reference file: expected a"):
        load_reference(tmp_path / "real.npz")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, r"mu of 3 numbers and sigma of \(4, 4\)"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "not finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2], [0, 1]])}, "not symmetric"),
        ({"mu": np.zeros(3), "sigma": -np.eye(3)}, "a variance on its diagonal is negative"),
        (
            {"mu": np.zeros(2), "sigma": np.array([[1.0, 2], [2, 1]])},
            "smallest eigenvalue is -1, and its largest 3",
        ),
        ({"mu": np.array(["a"]), "sigma": np.eye(1)}, "could not convert"),
        (
            {"mu": np.zeros(3), "sigma": np.eye(3), "features": np.zeros((5, 2))},
            "features of 2 numbers and mu of 3",
        ),
    ],
)
def test_arrays_that_are_no_moments_are_said(tmp_path, arrays, words):
    np.savez(tmp_path / "real.npz", **arrays)
    with pytest.raises(DataError, match=rf"real.npz is damaged \(.*{words}.*\): make it anew"):
        load_reference(tmp_path / "real.npz")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_covariance_without_full_rank_is_one(tmp_path, dtype):
    few = sight(20, width=30)
    arrays = {"mu": few.gaussian.mean.numpy(), "sigma": few.gaussian.cov.numpy().astype(dtype)}
    assert np.linalg.eigvalsh(arrays["sigma"].astype(np.float64))[0] < 1e-7
    np.savez(tmp_path / "real.npz", **arrays)
    assert load_reference(tmp_path / "real.npz").width == 30


def test_kept_in_part_it_tells_the_sampling_of_all(tmp_path):
    """Not that of the part, and not none."""
    drawn = sight(2000, seed=1)
    scores = {
        keep: [METRICS[name](reference(keep=keep), drawn)[0] for name in ("fid", "fid_infinity")]
        for keep in (0, 20, 50)
    }
    assert scores[20] == scores[0]
    for part, whole in zip(scores[20], scores[50], strict=True):
        assert part.error == pytest.approx(whole.error, rel=0.2)
        assert part.error > 1.5 * part.own_error
        assert part.name == whole.name


def test_an_archive_of_pictures_is_no_reference(tmp_path):
    np.savez(tmp_path / "drawn.npz", arr_0=np.zeros((2, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r'drawn.npz has no "mu" and "sigma"'):
        load_reference(tmp_path / "drawn.npz")
