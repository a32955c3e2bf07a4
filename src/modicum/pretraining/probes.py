"""What a frozen representation is worth: nearest neighbors, a linear layer, naive Bayes, and a few labels of each class.

Features go in, accuracies come out; nothing here trains an encoder. `modicum.pretraining.probe` runs them all, with
raw inputs and an untrained network as controls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modicum.arrays import class_indices, tensor
from modicum.context import generator
from modicum.errors import DataError, ModicumError
from modicum.pretraining.linear import choose_l2, fit_reader

__all__ = ["FewShot", "few_shot_probe", "knn_predict", "knn_probe", "linear_probe", "naive_bayes_probe"]

BLOCK = 1 << 23  # similarities at a time
FEW_L2 = 1e-3


def knn_predict(
    train_features: Any, train_labels: Any, test_features: Any, k: int = 200, temperature: float = 0.1
) -> Tensor:
    """Classes by weighted nearest neighbors.

    Of a test sample the k most similar training samples by cosine `s_i` vote for their class with weight
    `exp(s_i / temperature)`; a tie goes to the lower class. Memory is that of 8 million similarities and of one copy of the
    features.

    Args:
        train_features: (n, d) finite numbers; a row of zeros is similar to nothing.
        train_labels: (n,) class indices.
        test_features: (m, d).
        k: Neighbors that vote; all n where there are fewer.
        temperature: Smaller gives nearer neighbors more weight.

    Returns:
        (m,) class indices, on the device of the training features.

    Raises:
        DataError: Shapes do not fit, or entries are not finite.
        ModicumError: k or the temperature is out of range.

    Example:
        >>> x, y = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1])
        >>> knn_predict(x, y, torch.tensor([[0.1, 1.0]]), k=3).tolist()
        [1]

    Reference:
        Wu, Xiong, Yu, Lin, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018,
        arXiv 1805.01978.
    """
    train, labels = _labeled("train", train_features, train_labels)
    test = _like(train, test_features)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ModicumError(f"k={k!r}; expected an integer >= 1, the neighbors that vote")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ModicumError(f"temperature={temperature!r}; expected a finite number > 0")
    k, classes = min(k, len(train)), int(labels.max()) + 1
    train = F.normalize(train, dim=1).T.contiguous()
    parts = []
    for rows in torch.split(test, max(1, BLOCK // train.shape[1])):
        similar, nearest = (F.normalize(rows, dim=1) @ train).topk(k, dim=1)
        weights = ((similar - similar[:, :1]) / temperature).double().exp()  # a common factor that cannot overflow
        votes = weights.new_zeros(len(rows), classes).scatter_add_(1, labels[nearest], weights)
        parts.append(votes.argmax(1))
    return torch.cat(parts)


def knn_probe(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """Accuracy of `knn_predict`.

    Args:
        train_features: (n, d) finite numbers.
        train_labels: (n,) class indices.
        test_features: (m, d).
        test_labels: (m,) class indices.
        k: Neighbors that vote; all n where there are fewer.
        temperature: Smaller gives nearer neighbors more weight.

    Returns:
        Share of right answers.

    Raises:
        DataError: Shapes do not fit, or entries are not finite.
        ModicumError: k or the temperature is out of range.

    Example:
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> knn_probe(x, y, torch.tensor([[0.1, 1.0], [1.0, 2.0]]), torch.tensor([1, 0]), k=1)
        0.5
    """
    predicted = knn_predict(train_features, train_labels, test_features, k, temperature)
    return _accuracy(predicted, test_labels)


def linear_probe(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
    l2: float | None = None,
) -> float:
    """Accuracy of softmax regression on the standardized features.

    Deterministic: the minimum of the mean cross-entropy plus `(l2/2) ||W||^2` on features with mean 0 and variance 1,
    without augmentation. The penalty, when it is not given, is the best of 10, 1, ... 1e-4 on a fifth of the training
    samples, after which all of them are fit.

    Args:
        train_features: (n, d) finite numbers.
        train_labels: (n,) class indices.
        test_features: (m, d).
        test_labels: (m,) class indices.
        l2: Coefficient of the penalty, above 0; chosen on held out training samples when None.

    Returns:
        Share of right answers.

    Raises:
        DataError: Shapes do not fit, or entries are not finite.
        ModicumError: l2 is not above 0.

    Example:
        >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
        >>> linear_probe(x, y, torch.tensor([[-2.0], [3.0]]), y, l2=0.1)
        1.0
    """
    train, labels = _labeled("train", train_features, train_labels)
    test, classes = _like(train, test_features), int(labels.max()) + 1
    chosen = choose_l2(train, labels, classes) if l2 is None else fit_reader(train, labels, classes, l2)
    return _accuracy(chosen.predict(test), test_labels)


def naive_bayes_probe(train_features: Any, train_labels: Any, test_features: Any, test_labels: Any) -> float:
    """Accuracy of Gaussian naive Bayes: each class a normal distribution with independent features.

    `argmax_c log n_c - sum_j (log v_cj + (x_j - m_cj)^2 / v_cj) / 2` with the mean m and variance v of class c, to which
    1e-9 of the largest variance of all is added. Nothing is tuned, so it shows whether the features are already apart.

    Args:
        train_features: (n, d) finite numbers.
        train_labels: (n,) class indices.
        test_features: (m, d).
        test_labels: (m,) class indices.

    Returns:
        Share of right answers.

    Raises:
        DataError: Shapes do not fit, or entries are not finite.

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0], [9.0], [10.0]]), torch.tensor([0, 0, 1, 1])
        >>> naive_bayes_probe(x, y, torch.tensor([[2.0], [8.0]]), torch.tensor([0, 1]))
        1.0
    """
    train, labels = _labeled("train", train_features, train_labels)
    x, test = train.double(), _like(train, test_features).double()
    center = x.mean(0)
    x, test = x - center, test - center
    there, y = torch.unique(labels, return_inverse=True)
    one = F.one_hot(y).to(x.dtype)  # (n, c)
    size = one.sum(0)
    mean = one.T @ x / size[:, None]
    variance = (one.T @ x.square() / size[:, None] - mean.square()).clamp_min(0)
    variance = variance + 1e-9 * x.var(0, correction=0).max().clamp_min(1e-30)
    rate = 1 / variance
    prior = size.log() - 0.5 * (variance.log() + mean.square() * rate).sum(1)
    logits = prior + test @ (mean * rate).T - 0.5 * test.square() @ rate.T
    return _accuracy(there[logits.argmax(1)], test_labels)


@dataclass(frozen=True)
class FewShot:
    """What a few labels of each class are worth.

    Args:
        shots: Labels of each class.
        classifier: `nearest mean` or `linear`.
        accuracy: Mean over the draws.
        error: Standard error of that mean, over the draws.
        draws: How many.
        labels: Read in a draw: shots times classes.
    """

    shots: int
    classifier: str
    accuracy: float
    error: float
    draws: int
    labels: int


def few_shot_probe(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
    shots: Sequence[int] = (1, 5, 10, 20),
    draws: int = 10,
    seed: int = 0,
) -> list[FewShot]:
    """Accuracy with a few labels of each class, over several draws of them.

    Features are centered by the mean of all training features, for which no label is needed, and brought to length 1.
    `nearest mean` answers with the class whose mean is nearest; `linear` is softmax regression with a penalty of 0.001,
    which is fixed because there are no labels left to choose it by.

    Args:
        train_features: (n, d) finite numbers.
        train_labels: (n,) class indices.
        test_features: (m, d).
        test_labels: (m,) class indices.
        shots: Labels of each class; numbers for which a class has too few samples are left out.
        draws: Repetitions, at least 2.
        seed: Of the draws; another representation of the same samples gets the same ones.

    Returns:
        For each number of shots, both classifiers.

    Raises:
        DataError: Shapes do not fit, or entries are not finite.
        ModicumError: Shots are not positive integers, or there are fewer than 2 draws.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]])
        >>> y = torch.tensor([0, 0, 1, 1])
        >>> [round(f.accuracy, 2) for f in few_shot_probe(x, y, x, y, shots=(1,), draws=2)]
        [1.0, 1.0]

    Reference:
        Wang, Chao, Weinberger, van der Maaten, SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot
        Learning, 2019, arXiv 1911.04623 (centering, and nearest means).
    """
    if draws < 2:
        raise ModicumError(f"draws={draws}; expected at least 2, for a standard error")
    if any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in shots):
        raise ModicumError(f"shots={tuple(shots)!r}; expected integers >= 1, labels of each class")
    train, labels = _labeled("train", train_features, train_labels)
    test = _like(train, test_features)
    center = train.double().mean(0).to(train.dtype)
    train, test = F.normalize(train - center, dim=1), F.normalize(test - center, dim=1)
    there, y, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    found = []
    for count in (s for s in shots if s <= int(sizes.min())):
        accuracies: dict[str, list[float]] = {"nearest mean": [], "linear": []}
        for draw in range(draws):
            picked = _of_each(y, sizes, count, generator(seed, "few-shot", count, draw))
            few = train[picked]
            means = few.view(len(there), count, -1).mean(1)
            near = test @ means.T - means.square().sum(1) / 2
            accuracies["nearest mean"].append(_accuracy(there[near.argmax(1)], test_labels))
            reader = fit_reader(few, y[picked], len(there), FEW_L2, standardize=False)
            accuracies["linear"].append(_accuracy(there[reader.predict(test)], test_labels))
        for name, values in accuracies.items():
            each = torch.tensor(values, dtype=torch.float64)
            error = float(each.std()) / math.sqrt(draws)
            found.append(FewShot(count, name, float(each.mean()), error, draws, count * len(there)))
    return found


def _of_each(y: Tensor, sizes: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Positions of so many random samples of each class, class by class."""
    order = torch.rand(len(y), generator=draw).argsort().to(y.device)
    by_class = order[y[order].argsort(stable=True)]
    starts = sizes.cumsum(0) - sizes
    return by_class[(starts[:, None] + torch.arange(count, device=y.device)).flatten()]


def _labeled(name: str, features: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Checked features (n, d) in float32 and their labels (n,) on the same device."""
    rows = tensor(f"{name}_features", features, (2,), "(n, d), one row a sample").float()
    return rows, torch.from_numpy(class_indices(f"{name}_labels", labels, len(rows))).to(rows.device)


def _like(train: Tensor, features: Any) -> Tensor:
    rows = tensor("test_features", features, (2,), "(m, d), one row a sample").float()
    if rows.shape[1] != train.shape[1]:
        raise DataError(
            f"test_features have {rows.shape[1]} columns, train_features {train.shape[1]}; expected those of one encoder"
        )
    return rows.to(train.device)


def _accuracy(predicted: Tensor, labels: Any) -> float:
    wanted = torch.from_numpy(class_indices("test_labels", labels, len(predicted)))
    return float((predicted.cpu() == wanted).double().mean())
