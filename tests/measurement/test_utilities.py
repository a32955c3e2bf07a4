import dataclasses
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import modicum
from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError, ModicumError
from modicum.ledger import Ledger
from modicum.measurement import Utilities, Utility
from modicum.measurement import utilities as module
from modicum.measurement.learners import Knn, Network, Problem, Ridge
from modicum.training.recipe import Recipe

RECIPE = Recipe(model="mlp(hidden=4)", epochs=2, batch_size=8, lr=0.05)
GROWING = ["ridge", "knn", "lda", "naive-bayes"]


def data(n=24, m=15, d=3, classes=3, order=None, seed=0):
    draw = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(n + m, d, generator=draw), torch.arange(n + m) % max(1, classes)
    if classes:
        inputs[torch.arange(n + m), targets % d] += 1.5
        info = Info(classes=tuple("abcdef"[:classes]))
    else:
        targets, info = inputs.sum(1) * 3 + 1, Info("regression", target_mean=1.0, target_std=4.0)
    whole = Dataset(inputs, targets, info=info)
    train = whole[:n] if order is None else whole[:n][order]
    return Splits(train, whole[n:], whole[:1])


def oracle(learner="ridge", metric="auto", ctx=None, **options):
    return Utilities(learner, metric=metric).measure(data(**options), RECIPE, ctx or Context())


def subsets(b, n=24, share=0.5, seed=0):
    return torch.rand(b, n, generator=torch.Generator().manual_seed(seed)) < share


def orders(b, n=24, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(n, generator=draw) for _ in range(b)])


# -- the description ---------------------------------------------------------------------------------------------------


def test_it_is_a_plain_description():
    made = Utilities("knn(k=3)", metric="probability")
    assert repr(made) == "Utilities(learner='knn(k=3)', encoder='inputs', metric='probability')"
    assert hash(made) == hash(dataclasses.replace(made))
    assert hash(Utilities(LogisticRegression())) == hash(Utilities(LogisticRegression()))
    assert Utilities().trainings() == 0
    assert Utilities(encoder="trained").trainings() == 0.2
    assert Utilities("network", encoder="trained").trainings() == 0  # which needs no features
    assert repr(oracle("knn(k=3)")) == "Utility(Knn(k=3), accuracy, 24 players, 15 queries)"
    assert "2 players of 24 samples" in repr(oracle().grouped(torch.arange(24) % 2))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"learner": "svm"}, "learner='svm' is unknown; expected one of ridge, knn"),
        ({"encoder": "clip"}, "encoder='clip'; expected one of"),
        ({"metric": "auc"}, "metric='auc'; expected one of auto, accuracy, probability, squared-error"),
        ({"learner": "ridge(l2=0)"}, "l2=0; expected a number > 0"),
    ],
)
def test_what_is_refused(options, text):
    with pytest.raises(ModicumError, match=text):
        Utilities(**options)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", [*GROWING, "logistic", "network", LogisticRegression()], ids=str)
def test_nobody_one_class_and_everybody(learner):
    utility = oracle(learner)
    targets, wanted = utility.problem.targets, utility.problem.wanted
    one = targets == 1
    found = utility.values(torch.stack([torch.zeros(24, dtype=torch.bool), one, torch.ones(24, dtype=torch.bool)]))
    assert float(found[0]) == utility.empty == float(wanted.bincount().max()) / 15
    assert float(found[1]) == float((wanted == 1).double().mean())
    assert float(found[2]) == utility.full
    assert utility.full > (0.3 if learner == "network" else 0.5)


def test_a_value_is_the_accuracy_of_the_learner_trained_on_the_set():
    utility, masks = oracle(), subsets(9)
    p = utility.problem
    x, queries = (torch.cat([a, a.new_ones(len(a), 1)], 1) for a in (p.features, p.queries))
    for mask, value in zip(masks, utility.values(masks)):
        weights = torch.linalg.solve(x[mask].T @ x[mask] + torch.eye(4), x[mask].T @ p.encoded()[mask])
        assert float(value) == float(((queries @ weights).argmax(1) == p.wanted).double().mean())


def test_players_are_in_the_order_of_the_ids_whatever_that_of_the_data():
    order = np.random.default_rng(0).permutation(24)
    for learner in (*GROWING, "logistic", "network"):
        straight, shuffled = oracle(learner), oracle(learner, order=order)
        assert torch.equal(straight.values(subsets(9)), shuffled.values(subsets(9)))
        assert torch.equal(straight.prefixes(orders(2))[0], shuffled.prefixes(orders(2))[0])


def test_regression():
    utility = oracle(classes=0)
    assert utility.metric == "squared-error"
    assert utility.empty == pytest.approx(-float(utility.problem.wanted.square().mean()))
    assert utility.empty < utility.full < 0
    assert utility.values(torch.zeros(1, 24, dtype=torch.bool)).tolist() == [utility.empty]
    values, _ = utility.prefixes(orders(3))
    for row, walked in zip(orders(3), values):
        masks = torch.zeros(24, 24, dtype=torch.bool)
        for j in range(24):
            masks[j, row[: j + 1]] = True
        torch.testing.assert_close(walked[1:], utility.values(masks), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("metric", ["accuracy", "probability"])
@pytest.mark.parametrize("learner", [*GROWING, "logistic"])
def test_blocks_change_nothing(learner, metric, monkeypatch):
    if (learner, metric) == ("ridge", "probability"):
        pytest.skip("ridge gives no probabilities")
    expected = oracle(learner, metric)
    masks, rows = subsets(12), orders(3)
    values, outcomes, walked = expected.values(masks), expected.outcomes(masks), expected.prefixes(rows)
    from modicum.measurement.learners import problem

    for target, name in ((module, "BLOCK"), (module, "IN_CACHE"), (problem, "BLOCK"), (module, "TOGETHER")):
        monkeypatch.setattr(target, name, 7 if name == "TOGETHER" else 500)
    small = oracle(learner, metric)
    torch.testing.assert_close(small.values(masks), values, rtol=0, atol=1e-5)
    torch.testing.assert_close(small.outcomes(masks), outcomes, rtol=0, atol=1e-3)
    torch.testing.assert_close(small.prefixes(rows)[0], walked[0], rtol=0, atol=1e-5)


def test_outcomes():
    for learner in (*GROWING, "logistic"):
        utility, masks = oracle(learner), subsets(9)
        correct = utility.outcomes(masks, "correct")
        torch.testing.assert_close(correct.mean(1), utility.values(masks))
        margin = utility.outcomes(masks)
        assert ((margin > 0) <= (correct == 1)).all()
        assert margin.isfinite().all()
        one = utility.outcomes((utility.problem.targets == 2)[None])
        assert one.shape == (1, 15)
    one = oracle().outcomes((oracle().problem.targets == 2)[None])[0]
    assert one.tolist() == [1.0 if w == 2 else -1.0 for w in oracle().problem.wanted.tolist()]


# -- sets that grow ----------------------------------------------------------------------------------------------------


def plain(utility, order, tolerance, patience):
    """Truncation by a loop over players."""
    values, hits, length = [utility.empty], 0, utility.players
    mask = torch.zeros(1, utility.players, dtype=torch.bool)
    for j, player in enumerate(order.tolist()):
        if length < utility.players:
            values.append(values[-1])
            continue
        mask[0, player] = True
        values.append(float(utility.values(mask)[0]))
        hits = hits + 1 if tolerance is not None and abs(values[-1] - utility.full) <= tolerance else 0
        if hits > patience:
            length = j + 1
    return values, length


@pytest.mark.parametrize("learner", [*GROWING, "logistic"])
@pytest.mark.parametrize("tolerance, patience", [(None, 5), (0.1, 2), (0.0, 0), (0.3, 5)])
def test_truncation_is_that_of_a_plain_loop_for_all_batch_sizes(learner, tolerance, patience):
    utility, rows = oracle(learner), orders(7)
    values, length = utility.prefixes(rows, tolerance, patience)
    for batch in (1, 2, 5):
        parts = [utility.prefixes(part, tolerance, patience) for part in torch.split(rows, batch)]
        assert torch.equal(torch.cat([v for v, _ in parts]), values)
        assert torch.equal(torch.cat([n for _, n in parts]), length)
    for row, found, stop in zip(rows, values, length):
        expected, at = plain(utility, row, tolerance, patience)
        assert found.tolist() == expected
        assert int(stop) == at
    if tolerance is None:
        assert (length == 24).all()
        assert torch.equal(values[:, -1], torch.full((7,), utility.full, dtype=torch.float64))


def test_a_walk_of_a_costly_learner_asks_what_the_loop_asks():
    rows, utility = orders(3), oracle("network")
    values, length = utility.prefixes(rows, 0.2, 1)
    for row, found, stop in zip(rows, values, length):
        assert (found.tolist(), int(stop)) == plain(utility, row, 0.2, 1)


@pytest.mark.parametrize("learner", ["ridge", "knn", "logistic"])
def test_groups_as_players(learner):
    utility, groups = oracle(learner), torch.arange(24) // 4
    grouped = utility.grouped(groups)
    masks = subsets(8, 6)
    assert grouped.players == 6
    assert grouped.full == utility.full
    assert torch.equal(grouped.values(masks), utility.values(masks[:, groups]))
    assert torch.equal(grouped.outcomes(masks), utility.outcomes(masks[:, groups]))
    values, length = grouped.prefixes(orders(5, 6), 0.1, 1)
    for row, found, stop in zip(orders(5, 6), values, length):
        assert (found.tolist(), int(stop)) == plain(grouped, row, 0.1, 1)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(GROWING), st.integers(2, 12), st.integers(1, 6), st.integers(0, 99))
def test_walks_and_questions_agree(learner, n, b, seed):
    utility = oracle(learner, n=n, seed=seed)
    walked, _ = utility.prefixes(orders(b, n, seed))
    for row, found in zip(orders(b, n, seed), walked):
        assert found.tolist() == pytest.approx(plain(utility, row, None, 0)[0], abs=1e-12)


# -- costs -------------------------------------------------------------------------------------------------------------


def test_questions_are_booked():
    utility, ctx = oracle(), Context()
    with utility.charged(ctx, "method"):
        utility.values(subsets(10))
    (charge,) = ctx.ledger.charges
    assert (charge.phase, charge.what) == ("choose", "method")
    assert charge.flops == pytest.approx(10 * Ridge().flops(utility.problem, float(subsets(10).sum()) / 10), abs=20)
    assert utility.trainings == 10
    with utility.charged(ctx, "method"):
        utility.prefixes(orders(3))
    assert ctx.ledger.charges[1].flops == round(3 * 24 * utility.learner.start(utility.problem, orders(3)).flops)
    assert utility.trainings == 10 + 3 * 24


def test_networks_are_booked_with_their_samples():
    utility, ctx = oracle("network"), Context()
    masks = subsets(4)
    with utility.charged(ctx, "method"):
        utility.values(masks)
    total = ctx.ledger.total("choose")
    assert total.samples == 2 * int(masks.sum()) + 4 * 15
    assert total.flops > 0


def test_what_has_no_count_is_named():
    ctx = Context()
    with oracle(LogisticRegression(), ctx=ctx).charged(ctx, "method") as _:
        pass
    assert ctx.ledger.charges[-1].uncounted == ("LogisticRegression",)


@pytest.mark.parametrize("learner", ["network", "logistic"])
def test_every_reader_pays_in_full_and_once(learner, tmp_path):
    def ask(utility, ledger, what="method"):
        ctx = Context(ledger=ledger)
        with utility.charged(ctx, what):
            values = utility.values(subsets(6))
        return values, ledger.charges[-1]

    first = oracle(learner, ctx=Context(cache=tmp_path))
    values, made = ask(first, ledger := Ledger())
    _, again = ask(first, ledger)
    assert (again.flops, again.samples) == (0, 0)
    assert again.seconds < made.seconds
    other = oracle(learner, ctx=Context(cache=tmp_path))
    for utility, what in ((first, "another"), (other, "method")):
        recalled, charge = ask(utility, ledger if utility is first else Ledger(), what)
        assert torch.equal(recalled, values)
        assert charge.flops == pytest.approx(made.flops, abs=6)
        assert charge.samples == made.samples
        assert charge.seconds > 0.2 * made.seconds
    assert other.trainings == 0
    assert oracle(learner, ctx=Context(cache=tmp_path, seed=1)).memory.known == {}


def test_failures_are_known_again(tmp_path, monkeypatch):
    def fit(self, x, y):
        if len(x) < 12:
            raise ValueError("too few")
        return real(self, x, y)

    real = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", fit)
    first, second = (oracle(LogisticRegression(), ctx=Context(cache=tmp_path)) for _ in range(2))
    masks = subsets(20)
    few = int((masks.sum(1) < 12).sum())
    assert few > 0
    with first.charged(Context(), "x"):
        first.values(masks)
    third = oracle(LogisticRegression(), ctx=Context(cache=tmp_path))
    third.values(masks)
    assert first.failures == third.failures == few
    assert third.trainings == 0
    assert (
        third.note == f"the learner failed on {few} subsets, which have a constant answer instead (in an earlier run)"
    )
    assert second.note == ""


@pytest.mark.parametrize("learner", ["network", "logistic"])
def test_killed_and_resumed_gives_the_same_bits(learner, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 4)
    kind = type(oracle(learner).learner)
    whole = oracle(learner).values(subsets(20))
    real, left = kind.outputs, [3]

    def outputs(self, problem, masks):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(self, problem, masks)

    ctx = Context(cache=tmp_path, checkpoint_seconds=0.0)
    monkeypatch.setattr(kind, "outputs", outputs)
    with pytest.raises(KeyboardInterrupt):
        oracle(learner, ctx=ctx).values(subsets(20))
    left[0] = 99
    resumed = oracle(learner, ctx=ctx)
    assert torch.equal(resumed.values(subsets(20)), whole)
    assert resumed.trainings == 20 - 3 * 4


def test_kill_9_loses_at_most_what_was_not_saved(tmp_path):
    code = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from test_utilities import Context, oracle, subsets
from modicum.measurement import utilities
utilities.TOGETHER = 2
utility = oracle("network", ctx=Context(cache=Path(sys.argv[1]), checkpoint_seconds=0.0))
print("ready", flush=True)
utility.values(subsets(400))
"""
    run = subprocess.Popen(
        [sys.executable, "-c", code.format(folder=os.path.dirname(__file__)), str(tmp_path)], stdout=subprocess.PIPE
    )
    ctx = Context(cache=tmp_path, checkpoint_seconds=0.0)
    try:
        run.stdout.readline()
        for _ in range(600):
            if next(tmp_path.glob("utilities/*/answers.safetensors"), None):
                break
            if run.poll() is not None:
                break
            time.sleep(0.02)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
    left = oracle("network", ctx=ctx)
    assert 0 < len(left.memory.known) < 400
    found = [answer.value for answer in left.memory.known.values()][:20]
    assert left.memory.store.verify() == []
    assert torch.tensor(found, dtype=torch.float64).allclose(oracle("network").values(subsets(400)[: len(found)]))


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken(Ridge):
    """Gives NaN on sets with the sample 5."""

    def outputs(self, problem, masks):
        made = super().outputs(problem, masks)
        made[masks[:, 5]] = torch.nan
        return made

    def start(self, problem, orders):
        return None


def test_a_value_that_is_not_finite_names_its_set():
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[0, [2, 5, 6]] = True
    text = r"Broken\(l2=1.0\) gives nan after training on the 3 samples \[2, 5, 6\]; expected finite numbers"
    for ask in (Utility.values, Utility.outcomes):
        with pytest.raises(DataError, match=text):
            ask(oracle(Broken()), mask)
    with pytest.raises(DataError, match=r"gives nan after training on the \d+ samples \["):
        oracle(Broken()).prefixes(orders(2))
    with pytest.raises(DataError, match=r"on the 24 samples \[0, 1, .*19\] and 4 more; expected"):
        print(oracle(Broken()).full)


def test_values_that_are_not_finite_while_sets_grow():
    p = oracle().problem
    p.features[3] = 1e200  # whose square overflows
    row = torch.tensor([[0, 1, 3, *[i for i in range(24) if i not in (0, 1, 3)]]])
    with pytest.raises((DataError, torch.linalg.LinAlgError)):
        Utility(p, Ridge()).prefixes(row)


def bare(n=4, m=2):
    return Problem(
        torch.zeros(n, 1).double(), torch.arange(n) % 2, torch.zeros(m, 1).double(), torch.zeros(m).long(), 2
    )


@pytest.mark.parametrize(
    "ask, text",
    [
        (
            lambda u: u.values(torch.ones(2, 23, dtype=torch.bool)),
            r"masks is torch.bool of shape \(2, 23\); expected booleans",
        ),
        (lambda u: u.values(torch.ones(2, 24)), r"masks is torch.float32 of shape \(2, 24\)"),
        (
            lambda u: u.values(torch.ones(24, dtype=torch.bool)),
            r"of shape \(24,\); expected booleans of shape \(b, 24\)",
        ),
        (lambda u: u.prefixes(orders(2, 23)), r"orders has shape \(2, 23\); expected \(b, 24\), one place a player"),
        (lambda u: u.prefixes(torch.zeros(1, 24).long()), r"orders has a row that is not a permutation of 0\.\.23"),
        (lambda u: u.prefixes(orders(1), tolerance=-0.1), r"tolerance=-0.1; expected a number >= 0, or None"),
        (lambda u: u.outcomes(subsets(1), "loss"), "kind='loss'; expected 'margin' or 'correct'"),
        (lambda u: u.grouped(torch.arange(23)), r"groups is torch.int64 of shape \(23,\); expected \(24,\) integers"),
        (
            lambda u: u.grouped(torch.arange(24) * 2),
            r"groups has the players \[0, 2, 4, 6, 8\]\.\.\., 24 in all; expected each",
        ),
        (lambda u: Utility(bare(m=0), Ridge()), "valid has 0 samples; expected at least one"),
        (lambda u: Utility(bare(), Ridge(), "squared-error"), "does not suit targets for classes"),
        (lambda u: Utility(bare(), Ridge(), "probability"), "needs a learner that gives probabilities"),
    ],
)
def test_wrong_questions(ask, text):
    with pytest.raises(DataError, match=text):
        ask(oracle())


def spoiled(name, column, at, value):
    splits = data(classes=3 if name != "targets" else 0)
    broken = getattr(splits.train, column).clone()
    broken[at] = value
    return splits._replace(train=splits.train.replace(**{column: broken}))


@pytest.mark.parametrize(
    "splits, text",
    [
        (data()._replace(train=data().train[[]]), "train has 0 samples; expected at least one"),
        (data()._replace(valid=data().valid[[]]), "valid has 0 samples; expected at least one"),
        (data()._replace(train=data().train[[1, 1, 2]]), "ids of train must be unique, but 1 comes twice"),
        (spoiled("inputs", "inputs", 7, torch.nan), "features of sample 7 are not finite; expected finite numbers"),
        (spoiled("targets", "targets", 3, torch.inf), "targets of train: that of sample 3 is inf"),
    ],
)
def test_wrong_data(splits, text):
    with pytest.raises(DataError, match=text):
        Utilities().measure(splits, RECIPE, Context())


def test_a_model_without_a_lasting_name_is_not_kept_on_disk(tmp_path):
    recipe = dataclasses.replace(RECIPE, model=lambda: torch.nn.Linear(3, 3))
    utility = Utilities("network").measure(data(), recipe, Context(cache=tmp_path))
    assert utility.memory.store is None
    assert utility.values(subsets(2)).shape == (2,)


def test_inputs_are_not_written_to():
    splits = data()
    before = splits.train.fingerprint
    for learner in (*GROWING, "logistic", "network"):
        utility, masks, rows = Utilities(learner).measure(splits, RECIPE, Context()), subsets(3), orders(2)
        kept = utility.problem.features.clone(), utility.problem.queries.clone()
        utility.values(masks)
        utility.prefixes(rows, 0.1)
        assert torch.equal(masks, subsets(3))
        assert torch.equal(rows, orders(2))
        assert torch.equal(utility.problem.features, kept[0])
        assert torch.equal(utility.problem.queries, kept[1])
    assert data().train.fingerprint == before


def test_no_features_are_made_for_a_network(monkeypatch):
    monkeypatch.setattr(module, "Features", None)
    with pytest.raises(TypeError):
        Utilities("ridge").measure(data(), RECIPE, Context())
    monkeypatch.undo()
    utility = oracle("network")
    assert utility.problem.features.shape == (24, 0)
    assert isinstance(utility.learner, Network)


@pytest.mark.slow
def test_memory_is_that_of_a_block():
    code = """
import torch
from modicum.ledger import peak_bytes
from modicum.measurement.learners import Problem, make_learner
from modicum.measurement.utilities import Utility
n, b = 1000, 40_000
draw = torch.Generator().manual_seed(0)
x, y = torch.randn(n, 32, generator=draw).double(), torch.arange(n) % 5
utility = Utility(Problem(x, y, x[:100], y[:100], 5), make_learner("ridge"))
masks = torch.empty(b, n, dtype=torch.bool).random_(0, 2, generator=draw)
before = peak_bytes()
utility.values(masks)
print(peak_bytes() - before)
"""
    grown = int(subprocess.check_output([sys.executable, "-c", code]))
    # two blocks of doubles; all sets at once would be 320 MB of masks and 328 MB of normal matrices
    assert grown < 2 * 2**24 * 8


def test_probabilities_of_neighbors_and_a_bundled_data_set():
    utility = Utilities("knn(k=3)", metric="probability").measure(modicum.load("iris"), RECIPE, Context())
    assert utility.full > 0.8
    assert utility.learner == Knn(k=3)
    assert utility.empty == 0
