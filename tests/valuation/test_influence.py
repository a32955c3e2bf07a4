from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.measurement.kronecker import kronecker_factors
from modicum.measurement.softmax import fit_softmax
from modicum.measurement.solver import Solver
from modicum.training.recipe import Recipe
from modicum.valuation import (
    Influence,
    influence_of_groups,
    influence_on_inputs,
    influence_on_loss,
    influence_on_parameters,
    self_influence,
)

N, M, D, C, L2 = 60, 15, 8, 3, 0.05


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ridge(seed=0):
    """Features, targets, the minimum and its matrix."""
    x, y = numbers(N, D, seed=seed), numbers(N, seed=seed + 1)
    h = x.T @ x / N + L2 * torch.eye(D, dtype=x.dtype)
    model = nn.Linear(D, 1, bias=False, dtype=x.dtype)
    model.weight.data[0] = torch.linalg.solve(h, x.T @ y / N)
    return x, y[:, None], model, h


def softmax(seed=0, d=4):
    x, v = numbers(N, d, seed=seed), numbers(M, d, seed=seed + 9)
    y = torch.randint(C, (N,), generator=torch.Generator().manual_seed(seed))
    w = torch.randint(C, (M,), generator=torch.Generator().manual_seed(seed + 1))
    head, _ = fit_softmax(x, y, C, L2)
    return x, y, v, w, linear(head.weights), head


def linear(weights):
    model = nn.Linear(weights.shape[1] - 1, len(weights), dtype=weights.dtype)
    model.load_state_dict({"weight": weights[:, :-1], "bias": weights[:, -1]})
    return model.eval()


def flat(weights):
    """Weights and intercepts of a head in the order of a module's parameters."""
    return torch.cat([weights[:, :-1].flatten(), weights[:, -1]])


def test_ridge_over_one_minus_leverage_is_leave_one_out():
    x, y, model, h = ridge()
    moves = influence_on_parameters(model, x, y, loss="squared", l2=L2, solver="exact")
    leverage = (x * torch.linalg.solve(h, x.T).T).sum(1) / N
    for i in range(N):
        others = torch.arange(N) != i
        without = x[others].T @ x[others] / N + L2 * torch.eye(D, dtype=x.dtype)
        refit = torch.linalg.solve(without, x[others].T @ y[others, 0] / N)
        exact = refit - model.weight.data[0]
        assert (moves[i] / (1 - leverage[i]) - exact).abs().max() <= 1e-12


def test_an_up_weighted_refit_moves_as_predicted():
    x, y, _, _, model, _ = softmax()
    moves = influence_on_parameters(model, x, y, l2=L2, rows=torch.tensor([3, 11]), solver="exact")
    for row, i in enumerate((3, 11)):
        ends = []
        for step in (1e-4, -1e-4):
            w = torch.full((N,), 1 / N, dtype=torch.float64)
            w[i] += step
            ends.append(flat(fit_softmax(x, y, C, L2, importance=w, tolerance=1e-12)[0].weights))
        slope = (ends[0] - ends[1]) / 2e-4  # d theta / d eps = -H^-1 grad l_i
        torch.testing.assert_close(-N * moves[row], slope, rtol=1e-5, atol=1e-7)


def test_loss_is_the_product_of_parameters_and_gradient():
    x, y, v, w, model, _ = softmax()
    moves = influence_on_parameters(model, x, y, l2=L2)
    model.zero_grad()
    nn.functional.cross_entropy(model(v), w).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    found = influence_on_loss(model, x, y, v, w, l2=L2)
    torch.testing.assert_close(found, moves @ gradient, rtol=1e-9, atol=1e-12)
    pairs = influence_on_loss(model, x, y, v, w, l2=L2, pairs=True)
    assert pairs.shape == (N, M)
    torch.testing.assert_close(pairs.mean(1), found, rtol=1e-9, atol=1e-12)
    own = influence_on_loss(model, x, y, x, y, l2=L2, pairs=True).diagonal()
    torch.testing.assert_close(self_influence(model, x, y, l2=L2, block=7), own, rtol=1e-9, atol=1e-12)
    assert (own > 0).all()


def test_removal_is_predicted_with_the_right_sign_and_size():
    x, y, v, w, model, head = softmax()
    predicted = influence_on_loss(model, x, y, v, w, l2=L2)
    data, plain = splits(x, y, v, w)
    newton = Influence(l2=L2, newton=True).score(data, Context(), plain).values
    before, changes = nn.functional.cross_entropy(model(v), w), []
    for i in range(N):
        importance = torch.full((N,), 1 / N, dtype=torch.float64)
        importance[i] = 0
        after = linear(fit_softmax(x, y, C, L2, importance=importance, start=head.weights)[0].weights)
        changes.append(float((nn.functional.cross_entropy(after(v), w) - before).detach()))
    for values, least, most in ((predicted.numpy(), 0.9, 1.25), (newton, 0.95, 1.1)):
        assert np.corrcoef(values, changes)[0, 1] > 0.99
        assert least < np.polyfit(values, changes, 1)[0] < most


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(
    "solver",
    [
        Solver("cg", rtol=1e-9),
        Solver("cg", rtol=1e-9, matrix="hessian"),
        Solver("lissa"),
        Solver("arnoldi", rank=15),
        "exact",
        "auto",
    ],
)
def test_solvers_agree(solver, pairs):
    x, y, v, w, model, _ = softmax()
    wanted = influence_on_loss(model, x, y, v, w, l2=L2, solver=Solver(matrix="hessian"), pairs=pairs)
    found = influence_on_loss(model, x, y, v, w, l2=L2, solver=solver, pairs=pairs)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_lissa_with_batches_comes_near():
    x, y, v, w, model, _ = softmax()
    wanted = influence_on_loss(model, x, y, v, w, l2=L2)
    found = influence_on_loss(model, x, y, v, w, l2=L2, solver=Solver("lissa", batch=20, iterations=150, sigma=5.0))
    assert np.corrcoef(found, wanted)[0, 1] > 0.95


@pytest.mark.parametrize("name", ["ek-fac", "k-fac"])
def test_factored_pairs_mean_and_self_agree(name):
    x, y, v, w, model, _ = softmax()
    solver = Solver(name, labels="expected")
    pairs = influence_on_loss(model, x, y, v, w, l2=L2, solver=solver, pairs=True)
    torch.testing.assert_close(pairs.mean(1), influence_on_loss(model, x, y, v, w, l2=L2, solver=solver))
    own = influence_on_loss(model, x, y, x, y, l2=L2, solver=solver, pairs=True).diagonal()
    torch.testing.assert_close(self_influence(model, x, y, l2=L2, solver=solver), own)
    solved = kronecker_factors(model, x, labels="expected", corrected=name == "ek-fac").solve
    moves = influence_on_parameters(model, x, y, l2=L2, solver=solver, rows=slice(0, 2))
    gradients = influence_on_parameters(model, x, y, l2=L2, solver="exact", rows=slice(0, 2))
    assert moves.shape == gradients.shape
    assert solved(moves.T, l2=L2).shape == (15, 2)


def test_some_layers_of_a_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)).double().eval()
    x, y, v, w, _, _ = softmax()
    with pytest.warns(UserWarning, match="gradient of the training loss .* has norm"):
        by_factors = influence_on_loss(model, x, y, v, w, solver=Solver("ek-fac", layers=("0", "3")), pairs=True)
    with pytest.warns(UserWarning, match="assume a minimum; train longer, or give l2"):
        by_cg = influence_on_loss(model, x, y, v, w, solver=Solver("cg", delta=0.1, layers=("0", "3")), pairs=True)
    assert np.corrcoef(by_factors.flatten(), by_cg.flatten())[0, 1] > 0.7
    with pytest.raises(ModicumError, match="layer '1' is a LayerNorm, for which there are no Kronecker factors"):
        influence_on_loss(model, x, y, v, w, solver="ek-fac")


def test_moving_an_input_changes_the_loss_as_predicted():
    x, y, v, w, model, head = softmax()
    found = influence_on_inputs(model, x, y, v, w, l2=L2)
    for i, column in ((0, 1), (5, 3)):
        ends = []
        for step in (1e-4, -1e-4):
            moved = x.clone()
            moved[i, column] += step
            refit = linear(fit_softmax(moved, y, C, L2, start=head.weights, tolerance=1e-12)[0].weights)
            ends.append(nn.functional.cross_entropy(refit(v), w))
        assert float(found[i, column]) == pytest.approx(float((ends[0] - ends[1]).detach() / 2e-4), rel=1e-4)


def test_groups_add_up_their_members():
    values, groups = numbers(6, 2), torch.tensor([0, 2, 2, 0, 1, 2])
    found = influence_of_groups(values, groups)
    torch.testing.assert_close(found, torch.stack([values[groups == g].sum(0) for g in range(3)]))
    with pytest.raises(DataError, match=r"groups has shape \(5,\).*expected 6 indices"):
        influence_of_groups(values, groups[:5])


# -- the method --------------------------------------------------------------------------------------------------------


def splits(x, y, v, w):
    info = Info(classes=tuple("abc"))
    train, valid = Dataset(x.float(), y, info=info), Dataset(v.float(), w, info=info)
    return Splits(train, valid, valid), SimpleNamespace(train=train.inputs, valid=valid.inputs)


@pytest.mark.parametrize("solver", ["auto", "exact", "cg", "lissa", "ek-fac", "k-fac", "arnoldi"])
def test_the_head_in_closed_form_equals_the_general_functions(solver):
    x, y, v, w, _, _ = softmax()
    data, features = splits(x, y, v, w)
    x, v = (t.double() for t in features.__dict__.values())
    model = linear(fit_softmax(x, y, C, L2)[0].weights)
    wanted = influence_on_loss(model, x, y, v, w, l2=L2, solver=Solver(solver, labels="expected"))
    scores = Influence(l2=L2, solver=solver).score(data, Context(), features)
    close = 1e-3 if solver == "cg" else 1e-6
    np.testing.assert_allclose(scores.values, wanted.numpy(), rtol=close, atol=close * np.abs(scores.values).max())
    assert solver in scores.note or solver == "auto"


def test_it_says_what_was_done():
    data, features = splits(*softmax()[:4])
    ctx = Context()
    scores = Influence().score(data, ctx, features)
    assert scores.note == "exact, softmax regression of 15 weights"
    assert scores.unit == "validation cross-entropy in nats"
    assert ctx.ledger.total("choose").extra_flops > 2 * N * 15
    wide = Influence(delta=0.3).score(data, Context(), features).values
    assert not np.allclose(wide, scores.values)


def test_a_wrong_label_is_worth_less_than_nothing():
    y, w = torch.arange(N) % C, torch.arange(M) % C
    x, v = 2 * torch.eye(4)[y] + 0.3 * numbers(N, 4), 2 * torch.eye(4)[w] + 0.3 * numbers(M, 4, seed=1)
    wrong = y.clone()
    wrong[:6] = (wrong[:6] + 1) % C
    data, features = splits(x, wrong, v, w)
    values = Influence().score(data, Context(), features).values
    assert values[:6].max() < 0 < np.median(values[6:])


def test_a_class_that_only_validation_has():
    x, y, v, w, _, _ = softmax()
    data, features = splits(x, y.clamp_max(1), v, w)
    assert np.isfinite(Influence().score(data, Context(), features).values).all()


def test_columns_must_agree():
    data, features = splits(*softmax()[:4])
    features.valid = features.valid[:, :3]
    with pytest.raises(DataError, match="valid features have 3 columns but train features have 4"):
        Influence().score(data, Context(), features)


def test_newton_steps_need_the_whole_matrix():
    data, features = splits(*softmax()[:4])
    with pytest.raises(ModicumError, match=r"newton=True needs solver='exact'.*got solver='cg'"):
        Influence(solver="cg", newton=True).score(data, Context(), features)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"model": "tree"}, "model='tree'; expected 'head' or 'recipe'"),
        ({"solver": "newton"}, "solver='newton'; expected one of auto, exact, cg"),
        ({"l2": 0.0}, "l2=0.0; expected a number > 0"),
        ({"delta": -1.0}, "delta=-1.0; expected a number >= 0"),
    ],
)
def test_wrong_options(options, text):
    data, features = splits(*softmax()[:4])
    method = Influence(**options)
    with pytest.raises(ModicumError, match=text):
        method.score(data, Context(), features)


# -- of the recipe's network --------------------------------------------------------------------------------------------


def network(order=None, **options):
    y, w = torch.arange(N) % C, torch.arange(M) % C
    y[:6] = (y[:6] + 1) % C
    x, v = 2 * torch.eye(4)[(torch.arange(N)) % C] + 0.3 * numbers(N, 4), 2 * torch.eye(4)[w] + 0.3 * numbers(M, 4)
    data, _ = splits(x, y, v, w)
    if order is not None:
        data = data._replace(train=data.train[order])
    method = Influence(model="recipe", **options)
    recipe = Recipe(model="mlp(hidden=8, layers=1)", epochs=40, batch_size=20, lr=0.1, weight_decay=1e-2)
    ctx = Context()
    table = method.needs()[0].measure(data, recipe, ctx)
    return method.score(data, ctx, table), ctx, table, data


@pytest.mark.filterwarnings("ignore:the gradient of the training loss")
def test_a_network_is_trained_and_finds_wrong_labels():
    scores, ctx, table, _ = network()
    assert scores.note == "ek-fac"
    assert scores.values[:6].max() < np.quantile(scores.values[6:], 0.2)
    assert [c.what for c in ctx.ledger.charges][-1] == "influence"
    assert ctx.ledger.charges[-1].forward_flops > 0
    general, data = table.model(), table.train
    wanted = influence_on_loss(
        general, data.inputs, data.targets, table.valid.inputs, table.valid.targets, l2=1e-2, solver="ek-fac"
    )
    np.testing.assert_allclose(scores.values, wanted.numpy(), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:the gradient of the training loss")
def test_a_network_does_not_mind_the_order_of_the_samples():
    order = np.random.default_rng(0).permutation(N)
    straight, permuted = network()[0], network(order)[0]
    assert np.array_equal(permuted.values, straight.values[order])


@pytest.mark.filterwarnings("ignore:the gradient of the training loss")
def test_layers_without_factors_are_named_in_the_note():
    info = Info(modality="image", classes=("a", "b"))
    draw = torch.Generator().manual_seed(0)
    train = Dataset(torch.rand(12, 1, 8, 8, generator=draw), torch.arange(12) % 2, info=info)
    data, method = Splits(train, train, train), Influence(model="recipe")
    table = method.needs()[0].measure(data, Recipe(model="convnet(width=4, depth=1)", epochs=1), Context())
    scores = method.score(data, Context(), table)
    assert scores.note == "ek-fac on 2 of 3 layers, the linear and convolution layers"
    with pytest.raises(ModicumError, match="newton=True is for model='head'"):
        Influence(model="recipe", newton=True).score(data, Context(), table)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_empty_validation():
    x, y, v, w, model, _ = softmax()
    with pytest.raises(DataError, match="valid has 0 samples; influence on the loss needs at least one"):
        influence_on_loss(model, x, y, v[:0], w[:0])


def test_batch_norm_in_training_mode():
    x, y, v, w, _, _ = softmax()
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    for solver in ("exact", "ek-fac"):
        with pytest.raises(
            ModicumError, match=r"layer '1' \(BatchNorm1d\) is in training mode.*call model.eval|layer '1'"
        ):
            influence_on_loss(model, x, y, v, w, solver=solver)


def test_a_model_that_is_not_at_its_minimum_is_warned_about_with_the_norm():
    x, y, v, w, model, _ = softmax()
    with pytest.warns(UserWarning, match=r"has norm 0\.\d+, above 0.01"):
        influence_on_loss(model, x, y, v, w, l2=10 * L2)


def test_indefinite_matrix_without_damping():
    torch.manual_seed(0)
    x, y, v, w, _, _ = softmax()
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    for name in ("exact", "cg"):
        with (
            pytest.warns(UserWarning, match="gradient"),
            pytest.raises(ModicumError, match=r"negative curvature.*delta"),
        ):
            influence_on_loss(model, x, y, v, w, solver=Solver(name, matrix="hessian"))
        with pytest.warns(UserWarning, match="gradient"):
            influence_on_loss(model, x, y, v, w, solver=Solver(name, matrix="hessian", delta=1.0))


def test_exact_refuses_before_it_forms_the_matrix():
    model = nn.Linear(2500, 3)
    x, y = torch.randn(4, 2500), torch.tensor([0, 1, 2, 0])
    with (
        pytest.warns(UserWarning, match="gradient"),
        pytest.raises(ModicumError, match="would factor a matrix of 7,503 rows"),
    ):
        influence_on_loss(model, x, y, x, y, solver="exact")


@pytest.mark.parametrize(
    "options, text",
    [
        ({"solver": "inverse"}, "solver='inverse'; expected one of auto, exact, cg, lissa, arnoldi, ek-fac, k-fac"),
        ({"solver": Solver(layers=("7",))}, "the model has no layer '7'"),
        ({"loss": lambda z, y: (z.argmax(1) == y).double()}, "does not depend on the parameters in a differentiable"),
    ],
)
def test_wrong_arguments(options, text):
    x, y, v, w, model, _ = softmax()
    with pytest.raises(ModicumError, match=text):
        influence_on_loss(model, x, y, v, w, l2=L2, **options)
    with pytest.raises(ModicumError, match="matrix='fisher'"):
        Solver(matrix="fisher")
