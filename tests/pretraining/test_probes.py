"""Probes: against scikit-learn and by hand, bounded in memory, deterministic, with errors that say what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modicum.context import generator
from modicum.errors import DataError, ModicumError
from modicum.pretraining import linear, probes
from modicum.pretraining.linear import choose_l2, fit_reader
from modicum.pretraining.probes import few_shot_probe, knn_predict, knn_probe, linear_probe, naive_bayes_probe


def blobs(n: int = 90, d: int = 6, classes: int = 3, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = generator(seed, "blobs")
    centers = 2 * torch.randn(classes, d, generator=generator(0, "centers"))
    labels = torch.arange(n) % classes
    return centers[labels] + spread * torch.randn(n, d, generator=draw), labels


X, Y = blobs()
XT, YT = blobs(45, seed=1)


class TestNeighbors:
    def test_it_is_the_weighted_vote(self) -> None:
        similar = F.normalize(XT, dim=1) @ F.normalize(X, dim=1).T
        for i in range(len(XT)):
            nearest = similar[i].argsort(descending=True)[:7]
            votes = [sum(float((similar[i, j] / 0.1).exp()) for j in nearest if Y[j] == c) for c in range(3)]
            assert knn_predict(X, Y, XT, k=7)[i] == int(np.argmax(votes))

    def test_one_neighbor_is_scikit_learns(self) -> None:
        from sklearn.neighbors import KNeighborsClassifier

        peer = KNeighborsClassifier(1).fit(F.normalize(X, dim=1).numpy(), Y.numpy())
        assert knn_predict(X, Y, XT, k=1).tolist() == peer.predict(F.normalize(XT, dim=1).numpy()).tolist()

    def test_blocks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = knn_predict(X, Y, XT, k=5)
        monkeypatch.setattr(probes, "BLOCK", 3 * len(X))
        assert torch.equal(knn_predict(X, Y, XT, k=5), whole)

    @settings(max_examples=20, deadline=None)
    @given(st.floats(1e-3, 10.0), st.floats(0.01, 100.0))
    def test_length_does_not_matter_and_small_temperatures_do_not_overflow(
        self, temperature: float, size: float
    ) -> None:
        found = knn_predict(X, Y, XT, k=9, temperature=temperature)
        assert torch.equal(knn_predict(X, Y, size * XT, k=9, temperature=temperature), found)
        if temperature < 0.002:
            assert float((found == knn_predict(X, Y, XT, k=1)).double().mean()) > 0.9

    def test_more_neighbors_than_samples_are_all_of_them(self) -> None:
        assert knn_probe(X, Y, XT, YT, k=10_000) == knn_probe(X, Y, XT, YT, k=len(X))

    def test_numpy_is_fine_and_inputs_stay_as_they_are(self) -> None:
        before = X.clone()
        assert knn_probe(X.numpy(), Y.numpy(), XT.numpy(), YT.numpy(), k=5) == knn_probe(X, Y, XT, YT, k=5)
        assert torch.equal(X, before)

    def test_errors(self) -> None:
        with pytest.raises(ModicumError, match="k=0; expected an integer >= 1"):
            knn_probe(X, Y, XT, YT, k=0)
        with pytest.raises(ModicumError, match=r"temperature=-1\.0; expected a finite number > 0"):
            knn_probe(X, Y, XT, YT, temperature=-1.0)
        with pytest.raises(DataError, match="test_features have 5 columns, train_features 6"):
            knn_probe(X, Y, XT[:, :5], YT)
        with pytest.raises(DataError, match=r"test_labels has shape \(3,\); expected \(45,\)"):
            knn_probe(X, Y, XT, YT[:3])
        with pytest.raises(DataError, match=r"train_features\[0, 0\] is nan"):
            knn_probe(torch.full_like(X, float("nan")), Y, XT, YT)
        with pytest.raises(DataError, match="train_labels has dtype float32; expected integer class indices"):
            knn_probe(X, Y.float(), XT, YT)


class TestLinear:
    @pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
    def test_it_is_the_minimum_that_scikit_learn_finds(self, l2: float) -> None:
        from sklearn.linear_model import LogisticRegression

        z = ((X - X.mean(0)) / X.std(0, correction=0)).double().numpy()
        peer = LogisticRegression(C=1 / (l2 * len(X)), max_iter=10_000, tol=1e-10).fit(z, Y.numpy())
        found = fit_reader(X, Y, 3, l2)
        chances = np.log(peer.predict_proba(z)[np.arange(len(z)), Y.numpy()])
        assert found.loss == pytest.approx(-chances.mean() + l2 / 2 * (peer.coef_**2).sum(), abs=2e-5)
        if l2 >= 1e-2:  # with less the minimum is flat
            assert found.weights.numpy() == pytest.approx(peer.coef_, abs=1e-2)
        assert found.predict(XT).tolist() == peer.predict(((XT - X.mean(0)) / X.std(0, correction=0)).numpy()).tolist()

    def test_it_is_that_of_the_convex_head(self) -> None:
        from modicum.measurement.softmax import fit_softmax

        z = (X - X.mean(0)) / X.std(0, correction=0)
        head, _ = fit_softmax(z, Y, 3, l2=0.1)
        found = fit_reader(X, Y, 3, 0.1)
        # balanced classes of centered features: the intercepts are small, penalized or not
        assert found.weights.numpy() == pytest.approx(head.weights[:, :-1].numpy(), abs=0.02)

    def test_few_samples_of_many_features_give_the_same_in_their_span(self) -> None:
        x, y = blobs(12, 40)
        direct = fit_reader(x, y, 3, 0.01)
        z = (x - x.mean(0)) / x.std(0, correction=0)
        w, b = direct.weights.double().requires_grad_(), direct.bias.double().requires_grad_()
        loss = F.cross_entropy(z.double() @ w.T + b, y) + 0.005 * w.square().sum()
        gradients = torch.autograd.grad(loss, [w, b])
        assert float(loss.detach()) == pytest.approx(direct.loss, abs=1e-5)
        assert max(float(g.abs().max()) for g in gradients) < 1e-3

    def test_wide_features_go_without_the_factor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with_factor = fit_reader(X, Y, 3, 0.1)
        monkeypatch.setattr(linear, "WIDEST", 2)
        without = fit_reader(X, Y, 3, 0.1)
        assert without.loss == pytest.approx(with_factor.loss, abs=1e-5)

    def test_constant_features_and_scales_do_not_matter(self) -> None:
        plain = linear_probe(X, Y, XT, YT, l2=0.01)
        wide, wide_test = (torch.cat([1e3 * x, torch.full((len(x), 1), 7.0)], 1) for x in (X, XT))
        assert linear_probe(wide, Y, wide_test, YT, l2=0.01) == plain

    def test_the_penalty_is_chosen_within_the_training_samples(self) -> None:
        noisy, y = blobs(60, 30, spread=4.0)
        chosen = choose_l2(noisy, y, 3)
        assert chosen.l2 >= 0.1  # little can be learned, so much is shrunk
        assert choose_l2(noisy, y, 3).weights.equal(chosen.weights)
        assert linear_probe(X, Y, XT, YT) > 0.9

    def test_classes_that_are_never_seen_are_never_said(self) -> None:
        assert linear_probe(X[Y > 0], Y[Y > 0], XT, YT, l2=0.1) < 0.7

    def test_errors(self) -> None:
        with pytest.raises(ModicumError, match="l2=0; expected a number > 0"):
            linear_probe(X, Y, XT, YT, l2=0)
        with pytest.raises(DataError, match="features have 90 rows and labels 3"):
            fit_reader(X, Y[:3], 3, 0.1)
        with pytest.raises(DataError, match=r"labels reach from 0 to 2; expected 0..1"):
            fit_reader(X, Y, 2, 0.1)


def test_naive_bayes_is_scikit_learns() -> None:
    from sklearn.naive_bayes import GaussianNB

    labels, wanted = 2 * Y + 1, 2 * YT + 1  # numbers that are not 0..c-1
    peer = GaussianNB().fit(X.double().numpy(), labels.numpy())
    for k in range(5):
        x, y = blobs(60, seed=k + 5, spread=3.0)
        expected = float((peer.predict(x.double().numpy()) == (2 * y + 1).numpy()).mean())
        assert naive_bayes_probe(X, labels, x, 2 * y + 1) == pytest.approx(expected)
    assert naive_bayes_probe(X, labels, XT, wanted) > 0.9


def test_naive_bayes_bears_features_that_do_not_vary() -> None:
    x, xt = (torch.cat([a, torch.ones(len(a), 1)], 1) for a in (X, XT))
    assert naive_bayes_probe(x, Y, xt, YT) > 0.9


class TestFewShot:
    def test_more_labels_are_better_and_rows_say_what_they_are(self) -> None:
        rows = few_shot_probe(*blobs(300, 20, spread=3.0), *blobs(200, 20, spread=3.0, seed=1), shots=(1, 10, 50))
        assert [(r.shots, r.classifier, r.labels) for r in rows] == [
            (s, name, 3 * s) for s in (1, 10, 50) for name in ("nearest mean", "linear")
        ]
        for name in ("nearest mean", "linear"):
            one, _, fifty = (r for r in rows if r.classifier == name)
            assert fifty.accuracy > one.accuracy + 3 * one.error
            assert 0 < fifty.error < 0.05

    def test_the_draw_takes_each_class_as_often(self) -> None:
        y = torch.tensor([0] * 5 + [1] * 9 + [2] * 4)
        sizes = torch.bincount(y)
        picked = torch.stack([probes._of_each(y, sizes, 4, generator(0, draw)) for draw in range(20)])
        assert torch.equal(y[picked], torch.arange(3).repeat_interleave(4).expand(20, -1))
        assert all(len(set(row.tolist())) == 12 for row in picked)
        assert len({tuple(row.tolist()) for row in picked}) == 20

    def test_shots_that_a_class_does_not_have_are_left_out(self) -> None:
        assert {r.shots for r in few_shot_probe(X[:12], Y[:12], XT, YT)} == {1}

    def test_the_same_seed_gives_the_same_numbers(self) -> None:
        first = few_shot_probe(X, Y, XT, YT, shots=(2,), seed=3)
        assert few_shot_probe(X, Y, XT, YT, shots=(2,), seed=3) == first
        assert few_shot_probe(X, Y, XT, YT, shots=(2,), seed=4) != first

    def test_errors(self) -> None:
        with pytest.raises(ModicumError, match="draws=1; expected at least 2"):
            few_shot_probe(X, Y, XT, YT, draws=1)
        with pytest.raises(ModicumError, match=r"shots=\(0,\); expected integers >= 1"):
            few_shot_probe(X, Y, XT, YT, shots=(0,))
