import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import DataError
from modicum.selection import InfoBatch, InfoBatchSampler
from modicum.training.order import permutation
from modicum.training.recipe import Recipe


def seen(n=101, seed=0, **options):
    sampler = InfoBatchSampler(n, epochs=8, seed=seed, **options)
    sampler.observe(torch.arange(n), torch.rand(n, generator=torch.Generator().manual_seed(5)))
    return sampler


def test_expected_weighted_gradient_is_the_full_gradient():
    n, d, c, draws = 101, 4, 3, 2000
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=draw, dtype=torch.float64), torch.randint(c, (n,), generator=draw)
    w = torch.randn(d, c, generator=draw, dtype=torch.float64)
    error = (x @ w).softmax(1) - F.one_hot(y, c)
    gradients = torch.einsum("nd,nc->ndc", x, error).flatten(1)
    estimates = []
    for seed in range(draws):
        sampler = InfoBatchSampler(n, epochs=8, ratio=0.6, seed=seed)
        sampler.observe(torch.arange(n), F.cross_entropy(x @ w, y, reduction="none"))
        positions, weights = sampler.order(1)
        estimates.append((gradients[positions] * weights.double()[:, None]).sum(0))
    estimates = torch.stack(estimates)
    z = (estimates.mean(0) - gradients.sum(0)) / (estimates.std(0) / draws**0.5)
    assert z.abs().max() < 3.5  # twelve coordinates
    assert z.abs().mean() < 1.5


@pytest.mark.parametrize("epoch", range(8))
def test_ratio_zero_and_last_epochs_are_plain_training(epoch):
    plain = permutation(101, 0, epoch)
    order, weights = seen(ratio=0).order(epoch)
    assert torch.equal(order, plain)
    assert weights is None
    order, weights = seen(ratio=0.5, delta=0.5).order(epoch)
    assert torch.equal(order, plain) == (epoch >= 4)
    assert (weights is None) == (epoch >= 4)


def test_only_well_learned_are_skipped_and_the_rest_keep_their_order():
    sampler = seen(ratio=0.5)
    order, weights = sampler.order(2)
    learned = sampler.losses < sampler.losses.mean()
    skipped = np.setdiff1d(np.arange(101), order)
    assert learned[skipped].all()
    assert abs(len(skipped) - 0.5 * learned.sum()) < 1
    assert (weights[learned[order]] == 2).all()
    assert (weights[~learned[order]] == 1).all()
    plain = permutation(101, 0, 2)
    assert torch.equal(plain[torch.isin(plain, order)], order)


def test_unseen_are_never_skipped():
    for seed in range(20):
        sampler = InfoBatchSampler(50, epochs=8, seed=seed)
        assert sampler.order(0)[1] is None
        sampler.observe(torch.arange(20), torch.arange(20.0))
        assert set(range(20, 50)) <= set(sampler.order(1)[0].tolist())


@pytest.mark.parametrize("n", [7, 50, 1000])
@pytest.mark.parametrize("loss", [0.1, 0.7, 3.3])
def test_of_equal_losses_none_is_below_the_mean(n, loss):
    sampler = InfoBatchSampler(n, epochs=8)
    sampler.observe(torch.arange(n), torch.full((n,), loss))
    assert len(sampler.order(1)[0]) == n


def test_order_depends_on_losses_before_the_epoch_only_and_resumes():
    sampler = seen()
    first = sampler.order(3)
    sampler.observe(torch.arange(50), torch.zeros(50))
    assert torch.equal(sampler.order(3)[0], first[0])
    other = InfoBatchSampler(101, epochs=8)
    other.load_state_dict(sampler.state_dict())
    for epoch in (3, 4):
        a, b = sampler.order(epoch), other.order(epoch)
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert not torch.equal(seen(seed=1).order(3)[0], first[0])


def test_alone_in_a_loop_with_a_data_loader():
    n = 40
    data = torch.utils.data.TensorDataset(
        torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), torch.arange(n)
    )
    sampler = InfoBatchSampler(n, epochs=4, delta=0.75)
    loader = torch.utils.data.DataLoader(data, batch_size=8, sampler=sampler)
    theta, visits = torch.zeros(3, requires_grad=True), []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        visits.append(0)
        for x, i in loader:
            loss = sampler.update(i, (x @ theta - 1) ** 2 + i / n)
            loss.backward()
            visits[-1] += len(i)
        assert visits[-1] == len(sampler)
        assert sampler.weights.sum() == pytest.approx(n, abs=1)
    assert visits[0] == visits[3] == n
    assert visits[1] < n
    assert theta.grad.abs().sum() > 0


def test_update_weights_the_loss_after_storing_it():
    sampler = seen()
    sampler.set_epoch(1)
    order, weights = sampler.order(1)
    losses = torch.rand(10, generator=torch.Generator().manual_seed(1))
    expected = (losses * weights[:10]).sum() / 10
    torch.testing.assert_close(sampler.update(order[:10], losses), expected)
    assert torch.equal(sampler.losses[order[:10]], losses)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"ratio": 1.0}, r"ratio=1.0; expected a share in \[0, 1\)"),
        ({"ratio": -0.1}, "ratio=-0.1"),
        ({"delta": 1.5}, "delta=1.5; expected a share"),
        ({"epochs": 0}, "epochs=0; expected a number > 0"),
        ({"n": 0}, "n=0; expected an integer >= 1"),
    ],
)
def test_errors_name_the_argument(options, text):
    with pytest.raises(DataError, match=text):
        InfoBatchSampler(**{"n": 10, "epochs": 5, **options})


def test_reduced_loss_is_refused():
    with pytest.raises(DataError, match=r"losses has shape \(\) .*use reduction='none'"):
        InfoBatchSampler(10, 5).observe(torch.arange(3), torch.tensor(0.5))
    with pytest.raises(DataError, match="losses of the saved state are for 10 samples; expected 9"):
        InfoBatchSampler(9, 5).load_state_dict(InfoBatchSampler(10, 5).state_dict())


def test_method_reads_the_recipe():
    data = Dataset(torch.zeros(100, 2), torch.arange(100) % 2, info=Info(classes=("a", "b")))
    sampler = InfoBatch(ratio=0.3).sampler(Splits(data, data, data), Recipe(steps=40, batch_size=25), Context(seed=4))
    assert (sampler.n, sampler.epochs, sampler.ratio, sampler.seed) == (100, 10, 0.3, 4)
