import numpy as np
import pytest
import torch

from modicum.errors import DataError
from modicum.valuation import ssp, supervised_prototypes


def blobs(n=40, seed=0):
    draw = np.random.default_rng(seed)
    points = np.concatenate([np.eye(3)[c] * 10 + draw.normal(size=(n, 3)) * 0.3 for c in range(3)])
    return points, np.arange(3).repeat(n)


def test_equals_the_angle_to_the_mean_direction_of_the_class():
    points, labels = blobs()
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    means = np.stack([unit[labels == c].sum(0) for c in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(supervised_prototypes(points, labels), 1 - (unit * means[labels]).sum(1), atol=1e-12)


def test_where_clusters_are_classes_it_is_the_unsupervised_score():
    points, labels = blobs()
    np.testing.assert_allclose(supervised_prototypes(points, labels), ssp(points, 3), atol=1e-12)


def test_a_label_from_another_blob_is_far():
    points, labels = blobs()
    labels[0] = 2
    distances = supervised_prototypes(points, labels)
    assert distances.argmax() == 0
    assert distances[0] > 0.9


def test_lengths_and_names_of_classes_do_not_matter():
    points, labels = blobs()
    scale = np.random.default_rng(1).uniform(0.1, 10, (len(points), 1))
    np.testing.assert_allclose(
        supervised_prototypes(points * scale, 5 * labels + 2), supervised_prototypes(points, labels), atol=1e-12
    )


def test_a_class_whose_directions_cancel_has_no_prototype():
    assert supervised_prototypes(np.array([[1.0, 2], [-1, -2], [3, 0]]), np.array([0, 0, 1])).tolist() == [1, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_inputs_are_not_written_to(dtype):
    points, labels = blobs()
    given = torch.from_numpy(points).to(dtype)
    before = given.clone()
    assert supervised_prototypes(given, torch.from_numpy(labels)).dtype == dtype
    assert torch.equal(given, before)


@pytest.mark.parametrize(
    "embeddings, targets, text",
    [
        (np.array([[1.0, 0], [0, 0]]), np.zeros(2, int), r"embeddings\[1\] is all zero"),
        (np.full((3, 2), np.nan), np.zeros(3, int), r"embeddings\[0, 0\] is nan"),
        (np.empty((0, 2)), np.zeros(0, int), "embeddings has shape"),
        (np.eye(3), np.zeros(2, int), r"targets has shape \(2,\); expected \(3,\)"),
        (np.eye(3), np.array([0, -1, 0]), r"targets\[1\] is -1"),
        (np.eye(3), np.zeros(3), "expected integer class indices"),
    ],
)
def test_errors_name_the_argument(embeddings, targets, text):
    with pytest.raises(DataError, match=text):
        supervised_prototypes(embeddings, targets)
