import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.errors import ModicumError
from modicum.measurement import projection
from modicum.measurement.projection import KINDS, project, project_back

SEEDS = 100


def vectors(n=4, p=600):
    return torch.randn(n, p, generator=torch.Generator().manual_seed(0))


def relative_errors(kind, k, g):
    """(seeds, n, n) errors of the inner products, in units of the product of the lengths."""
    norms = g.norm(dim=1)
    grams = torch.stack([z @ z.T for z in (project(g, k, kind, seed) for seed in range(SEEDS))])
    return (grams - g @ g.T) / (norms[:, None] * norms)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [16, 100])
def test_inner_products_are_unbiased_and_within_the_bound(kind, k):
    g = vectors()
    g[3] = g[2] + 0.1 * g[3]  # nearly parallel
    errors, bound = relative_errors(kind, k, g), math.sqrt(2 / k)
    assert bool((errors.mean(0).abs() < 4 * bound / math.sqrt(SEEDS)).all())
    assert bool((errors.std(0) < 1.25 * bound).all())  # a deviation of 100 draws is known to 7 %
    assert float(errors.std(0)[0, 0]) > 0.7 * bound  # and the bound is not loose


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_with_one_large_entry(kind):
    g = torch.zeros(2, 1000)
    g[0, 3] = g[1, 700] = 5.0
    z = torch.stack([project(g, 64, kind, seed) for seed in range(100)])
    torch.testing.assert_close((z * z).sum(2).mean(0), torch.full((2,), 25.0), rtol=0.1, atol=0)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 998), max_size=4),
    k=st.integers(1, 70),
    kind=st.sampled_from(KINDS),
    group=st.integers(1, 300),
)
def test_pieces_give_the_whole(cuts, k, kind, group):
    g, borders = vectors(3, 999).double(), sorted({0, *cuts, 999})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "COLUMNS", group)
        patch.setattr(projection, "ENTRIES", group * k)
        whole = project(g, k, kind, 1)
        parts = project((g[:, a:b] for a, b in pairwise(borders)), k, kind, 1)
        rows = torch.cat([project(row[None], k, kind, 1) for row in g])
        z = torch.randn(k, dtype=torch.float64)
        back = project_back(z, 999, kind, 1)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rows, whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(whole @ z, g @ back, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix_is_a_function_of_the_seed(kind):
    g = vectors(2, 500)
    assert torch.equal(project(g, 32, kind, 1), project(g, 32, kind, 1))
    assert not torch.equal(project(g, 32, kind, 1), project(g, 32, kind, 2))
    torch.testing.assert_close(
        project(g[:, :400], 32, kind), project(torch.cat([g[:, :400], 0 * g[:, 400:]], 1), 32, kind)
    )


def test_entries_are_signs():
    matrix = project(torch.eye(640, dtype=torch.float64), 50, "rademacher") * math.sqrt(50)
    torch.testing.assert_close(matrix.abs(), torch.ones(640, 50, dtype=torch.float64))
    assert abs(float(matrix.mean())) < 4 / math.sqrt(matrix.numel())
    correlations = matrix.T @ matrix / 640 - torch.eye(50, dtype=torch.float64)
    assert float(correlations.abs().max()) < 6 / math.sqrt(640)
    sketch = project(torch.eye(640), 50, "count-sketch")
    assert (sketch != 0).sum(1).tolist() == [1] * 640
    assert set(sketch.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert int((sketch != 0).sum(0).max()) < 40  # 12.8 in the mean


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: project(torch.ones(2, 3), 4, "sparse"), "kind='sparse'; expected one of"),
        (lambda: project(torch.ones(2, 3), 0), "dimensions=0; expected an integer >= 1"),
        (lambda: project(torch.ones(3), 4), r"a piece has shape \(3,\)"),
        (lambda: project([torch.ones(2, 3), torch.ones(3, 3)], 4), r"a piece has shape \(3, 3\)"),
        (lambda: project([], 4), "holds no pieces"),
        (lambda: project_back(torch.ones(2, 2), 4), r"vector has shape \(2, 2\)"),
    ],
)
def test_errors_name_what_is_wrong(make, text):
    with pytest.raises(ModicumError, match=text):
        make()
