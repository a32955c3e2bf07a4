import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modicum.errors import TrainingError
from modicum.losses.instance_discrimination import InstanceDiscrimination, NoiseContrastive


def batch(b=5, n=12, d=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(b, d, generator=draw, dtype=torch.float64).requires_grad_()
    bank = F.normalize(torch.randn(n, d, generator=draw, dtype=torch.float64), dim=1)
    return features, bank, torch.randperm(n, generator=draw)[:b]


def gradient(value, of):
    return torch.autograd.grad(value, of)[0]


def test_the_full_softmax_is_cross_entropy_over_frozen_weights():
    features, bank, indices = batch()
    layer = nn.Linear(4, 12, bias=False).double().requires_grad_(False)
    layer.weight.copy_(bank / 0.1)
    expected = F.cross_entropy(layer(F.normalize(features, dim=1)), indices)
    value = InstanceDiscrimination(0.1)(features, bank, indices)
    torch.testing.assert_close(value, expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(gradient(value, features), gradient(expected, features), atol=1e-13, rtol=0)


def test_no_gradient_reaches_the_bank():
    features, bank, indices = batch()
    bank.requires_grad_()
    InstanceDiscrimination()(features, bank, indices).backward()
    NoiseContrastive()(features, bank, indices, indices).backward()
    assert bank.grad is None


def test_noise_contrast_is_its_definition():
    features, bank, indices = batch()
    features = features.detach()
    noise = torch.tensor([0, 3, 3, 7])
    loss = NoiseContrastive(0.5, reduction="none").double()
    scores = (F.normalize(features, dim=1) @ bank.T / 0.5).exp()
    z = 12 * scores[:, noise].mean()
    p, m = scores / z, 4
    h = p / (p + m / 12)
    expected = -h[torch.arange(5), indices].log() - (1 - h[:, noise]).log().sum(1)
    torch.testing.assert_close(loss(features, bank, indices, noise), expected, atol=1e-6, rtol=1e-6)
    assert float(loss.log_z) == pytest.approx(math.log(float(z)), abs=1e-6)


def test_with_much_noise_the_gradient_is_that_of_the_softmax():
    features, bank, indices = batch()
    loss = NoiseContrastive(0.5, reduction="none").double()
    many = torch.arange(12).repeat(20_000)
    unit = F.normalize(features, dim=1)
    for i in range(5):  # the normalizer of a sample is exact where the first batch is that sample
        loss.log_z.fill_(torch.nan)
        one = slice(i, i + 1)
        value = loss(features[one], bank, indices[one], many).sum()
        exact = F.cross_entropy(unit[one] @ bank.T / 0.5, indices[one])
        torch.testing.assert_close(
            gradient(value, features), torch.autograd.grad(exact, features, retain_graph=True)[0], atol=1e-4, rtol=1e-3
        )


def test_the_normalizer_is_estimated_once_and_saved():
    features, bank, indices = batch()
    loss = NoiseContrastive()
    loss(features.float(), bank.float(), indices, torch.arange(12))
    first = float(loss.log_z)
    loss(-features.float(), bank.float(), indices, torch.arange(12))
    assert float(loss.log_z) == first
    other = NoiseContrastive()
    other.load_state_dict(loss.state_dict())
    assert float(other.log_z) == first


def test_noise_of_the_batch_is_noise_of_every_sample():
    features, bank, indices = batch()
    noise = torch.tensor([1, 5, 8])
    shared = NoiseContrastive(reduction="none").double()(features, bank, indices, noise)
    own = NoiseContrastive(reduction="none").double()(features, bank, indices, noise.expand(5, 3))
    torch.testing.assert_close(shared, own, atol=1e-12, rtol=0)


def test_the_order_of_the_batch_does_not_matter():
    features, bank, indices = batch()
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    loss = InstanceDiscrimination(reduction="none")
    torch.testing.assert_close(loss(features, bank, indices)[order], loss(features[order], bank, indices[order]))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"indices": torch.tensor([0, 12])}, "indices holds 12, but the bank has 12 rows; expected 0 to 11: positions"),
        ({"indices": torch.tensor([-1, 0])}, "indices holds -1, but the bank has 12 rows"),
        ({"indices": torch.zeros(2)}, r"indices has shape \(2,\) and type torch.float32; expected int64 \(2,\)"),
        ({"indices": torch.arange(3)}, r"indices has shape \(3,\)"),
        ({"features": torch.rand(2, 3)}, r"features have shape \(2, 3\) and the bank \(12, 4\)"),
        ({"features": torch.rand(0, 4)}, r"features have shape \(0, 4\)"),
        ({"noise": torch.zeros(3, 2, dtype=torch.int64)}, r"noise has shape \(3, 2\) for 2 samples"),
        ({"noise": torch.tensor([99])}, "noise holds 99, but the bank has 12 rows"),
    ],
)
def test_errors_name_the_argument(change, text):
    good = {
        "features": torch.rand(2, 4),
        "bank": torch.rand(12, 4),
        "indices": torch.tensor([3, 4]),
        "noise": torch.arange(3),
    }
    with pytest.raises(TrainingError, match=text):
        NoiseContrastive()(**{**good, **change})
    if "noise" not in change:
        made = {**good, **change}
        del made["noise"]
        with pytest.raises(TrainingError, match=text):
            InstanceDiscrimination()(**made)


@pytest.mark.parametrize("kind", [InstanceDiscrimination, NoiseContrastive])
def test_a_temperature_is_positive(kind):
    with pytest.raises(TrainingError, match="temperature=-1; expected a number > 0"):
        kind(-1)
