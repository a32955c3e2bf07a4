from importlib import import_module

import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.valuation import ssp


def blobs(n=40, seed=0):
    """Three spherical blobs, with the angle of each point to the mean direction of its own blob."""
    draw = np.random.default_rng(seed)
    points = np.concatenate([np.eye(3)[c] * 10 + draw.normal(size=(n, 3)) * 0.3 for c in range(3)])
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    means = np.stack([part.sum(0) / np.linalg.norm(part.sum(0)) for part in np.split(unit, 3)])
    return points, 1 - (unit * means.repeat(n, 0)).sum(1)


def test_separated_blobs_give_the_angle_to_their_own_center():
    points, expected = blobs()
    np.testing.assert_allclose(ssp(points, 3), expected, atol=1e-12)


def test_lengths_do_not_matter():
    points, _ = blobs()
    scale = np.random.default_rng(1).uniform(0.1, 10, (len(points), 1))
    np.testing.assert_allclose(ssp(points * scale, 3), ssp(points, 3), atol=1e-12)


def test_seed_decides():
    points = np.random.default_rng(0).normal(size=(200, 5))
    assert np.array_equal(ssp(points, 7, seed=3), ssp(points, 7, seed=3))


def test_fewer_distinct_points_than_clusters():
    points = np.repeat(np.eye(3), 4, axis=0)
    assert np.allclose(ssp(points, 6), 0)


def test_one_cluster_is_the_mean_direction():
    points = np.random.default_rng(0).normal(size=(50, 4)) + 2
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    center = unit.sum(0) / np.linalg.norm(unit.sum(0))
    np.testing.assert_allclose(ssp(points, 1), 1 - unit @ center, atol=1e-12)


def test_large_sets_start_from_minibatches(monkeypatch):
    points, expected = blobs(200)
    monkeypatch.setattr(import_module("modicum.valuation.ssp"), "LARGE", 100)
    np.testing.assert_allclose(ssp(points, 3), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_inputs_are_not_written_to(dtype):
    points = torch.from_numpy(blobs()[0]).to(dtype)
    before = points.clone()
    assert ssp(points, 3).dtype == dtype
    assert torch.equal(points, before)


@pytest.mark.parametrize(
    "embeddings, clusters, text",
    [
        (np.array([[1.0, 0], [0, 0]]), 1, r"embeddings\[1\] is all zero"),
        (np.eye(3), 4, "clusters=4; expected an integer from 1 to the number of samples, 3"),
        (np.eye(3), 0, "clusters=0"),
        (np.full((3, 2), np.nan), 1, r"embeddings\[0, 0\] is nan"),
        (np.empty((0, 2)), 1, "embeddings has shape"),
    ],
)
def test_errors_name_the_argument(embeddings, clusters, text):
    with pytest.raises(DataError, match=text):
        ssp(embeddings, clusters)
