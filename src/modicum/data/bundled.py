"""The data sets that come with scikit-learn, read from the installed package without a network."""

from __future__ import annotations

import numpy as np

from modicum.data.arrays import ArrayInputs
from modicum.data.raw import Raw

__all__ = ["BUNDLED", "read_bundled"]

BUNDLED = ("digits", "iris", "wine", "breast_cancer", "diabetes")


def read_bundled(name: str) -> Raw:
    """One of the bundled sets: `digits` as images, the others as tables; `diabetes` is a regression.

    The digits are counts 0..16 in scikit-learn; here they are stretched to 0..255 as other gray images are.
    """
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    ids, source = np.arange(len(bunch.data)), f"scikit-learn {name}"
    if name == "digits":
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        return Raw(ArrayInputs(images), bunch.target, ids, classes=tuple(map(str, bunch.target_names)), source=source)
    columns = {"columns": tuple(map(str, bunch.feature_names))}
    if name == "diabetes":
        return Raw(ArrayInputs(bunch.data), bunch.target + 0.0, ids, source=source, info=columns)
    classes = tuple(map(str, bunch.target_names))
    return Raw(ArrayInputs(bunch.data), bunch.target, ids, classes=classes, source=source, info=columns)
