import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError
from modicum.measurement import FeatureTable
from modicum.valuation import Lava, class_wise_transport, lava
from modicum.valuation.lava import class_distances

N, M = 11, 7


def problem(n=N, m=M, d=2, classes=2, seed=0):
    draw = np.random.default_rng(seed)
    y, z = np.arange(n) % classes, np.arange(m) % classes
    centers = 2 * draw.normal(size=(classes, d))
    return centers[y] + draw.normal(size=(n, d)), y, centers[z] + draw.normal(size=(m, d)), z


def ground(x, y, v, z, label_weight=1.0, eps=0.1):
    groups = [torch.from_numpy(part) for part in [x[y == c] for c in (0, 1)] + [v[z == c] for c in (0, 1)]]
    table = class_distances(groups, eps).numpy()[:2, 2:]
    return ((x[:, None] - v) ** 2).sum(2) + label_weight * table[np.ix_(y, z)]


def distance(cost, a):
    """Unregularized transport from masses a to equal masses, by linear programming."""
    n, m = cost.shape
    equal = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return linprog(cost.ravel(), A_eq=equal, b_eq=np.concatenate([a, np.full(m, 1 / m)]), method="highs").fun


def entropic(cost, a, eps, steps=2000):
    _n, m = cost.shape
    g = np.zeros(m)
    for _ in range(steps):
        f = -eps * np.log(np.exp((g - cost) / eps) @ np.full(m, 1 / m))
        g = -eps * np.log(a @ np.exp((f[:, None] - cost) / eps))
    return a @ f + g.mean()


def slopes(value, n, step):
    """Central differences when mass moves to i from all others."""
    found = []
    for i in range(n):
        move = np.full(n, -1 / (n - 1))
        move[i] = 1
        uniform = np.full(n, 1 / n)
        found.append((value(uniform + step * move) - value(uniform - step * move)) / (2 * step))
    return np.array(found)


def test_equals_the_derivative_of_the_linear_program():
    x, y, v, z = problem()
    cost = ground(x, y, v, z, eps=0.002)
    expected = slopes(lambda a: distance(cost, a), N, 1e-6)
    found = -lava(x, y, v, z, eps=0.002, debiased=False)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_equals_the_derivative_of_the_entropic_cost():
    x, y, v, z = problem(n=9, m=9)
    cost = ground(x, y, v, z, eps=0.5)
    expected = slopes(lambda a: entropic(cost, a, 0.5), 9, 1e-5)
    found = -lava(x, y, v, z, eps=0.5, debiased=False)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


def test_debiased_takes_off_the_transport_to_itself():
    x, _y, v, _z = problem()
    none = np.zeros(N, int), np.zeros(M, int)
    within = ((x[:, None] - x) ** 2).sum(2)
    across = ((x[:, None] - v) ** 2).sum(2)
    self_slopes = slopes(lambda a: entropic_both(within, a, 1.0), N, 1e-5) / 2
    expected = slopes(lambda a: entropic(across, a, 1.0), N, 1e-5) - self_slopes
    found = -lava(x, none[0], v, none[1], eps=1.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def entropic_both(cost, a, eps, steps=500):
    f = np.zeros(len(a))
    for _ in range(steps):
        f = (f - eps * np.log(np.exp((f - cost) / eps) @ a)) / 2
    return 2 * a @ f


def test_values_sum_to_zero_and_follow_a_permutation():
    x, y, v, z = problem(30, 20)
    values = lava(x, y, v, z)
    assert abs(values.sum()) < 1e-9
    order, other = np.random.default_rng(1).permutation(30), np.random.default_rng(2).permutation(20)
    np.testing.assert_allclose(lava(x[order], y[order], v[other], z[other]), values[order], atol=1e-4)
    np.testing.assert_allclose(lava(x + 5, y, v + 5, z), values, atol=1e-4)


def test_samples_like_those_of_validation_are_neutral_and_strangers_are_not():
    _x, _y, v, z = problem(12, 12)
    values = lava(v, z, v, z, eps=1.0)
    np.testing.assert_allclose(values, 0, atol=1e-5)
    strange = v.copy()
    strange[3] += 20
    values = lava(strange, z, v, z, eps=1.0)
    assert values.argmin() == 3
    wrong = z.copy()
    wrong[5] = 1 - wrong[5]
    apart = v + 10 * z[:, None]
    assert lava(apart, wrong, apart, z, eps=1.0).argmin() == 5


def test_distances_of_classes():
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 2, generator=draw, dtype=torch.float64) * torch.tensor([1.0, 2.0])
    b = torch.randn(4000, 2, generator=draw, dtype=torch.float64) * torch.tensor([3.0, 1.0]) + 5
    gaussian = class_distances([a, b], label_distance="gaussian")
    mean = (a.mean(0) - b.mean(0)).square().sum()
    roots = []
    for part in (a, b):
        value, vector = torch.linalg.eigh(torch.cov(part.T, correction=0))
        roots.append(vector @ value.sqrt().diag() @ vector.T)
    inner = roots[0] @ roots[1] @ roots[1] @ roots[0]
    trace = sum((root @ root).trace() for root in roots) - 2 * torch.linalg.eigvalsh(inner).sqrt().sum()
    assert float(gaussian[0, 1]) == pytest.approx(float(mean + trace), rel=1e-9)
    exact = class_distances([a[:300], b[:300]], eps=0.1)
    assert float(exact[0, 1]) == pytest.approx(float(gaussian[0, 1]), rel=0.05)
    assert float(class_distances([a[:50], a[:50]], eps=0.1)[0, 1]) == pytest.approx(0, abs=1e-6)


def test_same_kind_and_dtype_and_no_writes():
    given = [torch.from_numpy(part) for part in problem()]
    before = given[0].clone()
    assert lava(*given).dtype == torch.float64
    assert lava(given[0].float(), *given[1:]).dtype == torch.float32
    assert torch.equal(given[0], before)
    found = class_wise_transport(*given)
    assert found.violation < 1e-6
    assert found.flops > 0


def test_hundreds_of_samples_converge():
    assert class_wise_transport(*problem(400, 400, d=8, classes=4)).violation < 1e-6


def test_the_note_says_how_far_it_is_from_converged():
    x, y, v, z = problem(30, 20)
    info = Info(classes=("a", "b"))
    train, valid = (Dataset(torch.from_numpy(a).float(), torch.from_numpy(b), info=info) for a, b in ((x, y), (v, z)))
    table = FeatureTable(train.inputs, valid.inputs)
    scores = Lava(solver="converged").score(Splits(train, valid, valid), Context(), table)
    assert scores.note.startswith("marginal violation ")
    np.testing.assert_allclose(
        scores.values, lava(train.inputs.double(), train.targets, valid.inputs.double(), valid.targets), atol=1e-6
    )


GOOD = problem()


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"eps": 0.0}, "eps=0.0; expected a number > 0"),
        ({"eps": float("nan")}, "eps=nan"),
        ({"label_distance": "bures"}, "label_distance='bures'; expected 'exact' or 'gaussian'"),
        ({"solver": "exact"}, "solver='exact'; expected 'converged' or 'annealed'"),
        ({"feature_weight": 0}, "feature_weight=0; expected a number > 0"),
        ({"label_weight": -1.0}, "label_weight=-1.0; expected a number >= 0"),
        ({"valid_features": GOOD[2][:, :1]}, "valid_features have 1 columns but train_features have 2"),
        ({"train_targets": GOOD[1][:5]}, r"train_targets has shape \(5,\)"),
        ({"train_features": np.full((N, 2), np.inf)}, r"train_features\[0, 0\] is inf"),
        ({"train_features": GOOD[0][:1], "train_targets": GOOD[1][:1]}, "train_features has 1 sample"),
        (
            {
                "label_distance": "gaussian",
                "train_targets": np.eye(N, dtype=int)[0],
                "valid_targets": np.eye(M, dtype=int)[0],
            },
            r"a class \(number 1\) has 1 samples; label_distance='gaussian' needs at least 2",
        ),
    ],
)
def test_errors_name_the_argument(changes, text):
    names = ("train_features", "train_targets", "valid_features", "valid_targets")
    with pytest.raises(DataError, match=text):
        lava(**{**dict(zip(names, GOOD)), **changes})


def test_a_class_that_validation_has_not_is_said():
    x, y, v, z = GOOD
    y = y.copy()
    y[0] = 5
    with pytest.warns(UserWarning, match="train_targets has class 5, which valid_targets has not"):
        assert np.isfinite(lava(x, y, v, z)).all()


@pytest.mark.parametrize("debiased", [False, True])
def test_annealed_equals_one_step_a_scale_by_hand(debiased):
    x, y, v, z = problem()

    def by_hand(cost):
        def soft(eps, cost, prices):
            return -eps * np.log(np.exp((prices - cost) / eps).mean(1))

        eps = cost.max()
        f, g = soft(eps, cost, 0), soft(eps, cost.T, 0)
        scales = [eps]
        while scales[-1] > 0.5:
            scales.append(max(0.5, scales[-1] / 4))
        for eps in scales:
            f, g = (f + soft(eps, cost, g)) / 2, (g + soft(eps, cost.T, f)) / 2
        return soft(0.5, cost, g)

    f = by_hand(((x[:, None] - v) ** 2).sum(2))
    if debiased:
        f = f - by_hand(((x[:, None] - x) ** 2).sum(2))
    expected = -(f - (f.sum() - f) / (N - 1))
    found = lava(x, y, v, z, eps=0.5, debiased=debiased, solver="annealed", label_weight=0)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_no_answer_before_it_converges(monkeypatch):
    from modicum.valuation import sinkhorn

    monkeypatch.setattr(sinkhorn, "STEPS", 1)
    with pytest.raises(
        DataError, match=r"eps=0.001 does not converge: the marginals are off by .*; expected at most 0.001"
    ):
        lava(*GOOD, eps=0.001, debiased=False)
