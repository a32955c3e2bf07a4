import math

import pytest
import torch
import torch.nn.functional as F

from modicum.errors import TrainingError
from modicum.losses import MultipleNegatives


def pair(n=6, d=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draw), torch.randn(n, d, generator=draw)


@pytest.mark.parametrize("targets", ["diagonal", "similarity"])
def test_equals_the_definition(targets):
    a, b = pair()
    u, v = F.normalize(a), F.normalize(b)
    logits = 20 * u @ v.T
    expected = -logits.log_softmax(1).diagonal()
    if targets == "similarity":
        expected = (expected - logits.log_softmax(0).diagonal()) / 2
    torch.testing.assert_close(MultipleNegatives(targets=targets, reduction="none")(a, b), expected)
    torch.testing.assert_close(MultipleNegatives(targets=targets)(a, b), expected.mean())


@pytest.mark.parametrize("targets", ["diagonal", "similarity"])
def test_the_order_of_the_pairs_permutes_the_losses(targets):
    a, b = pair()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    loss = MultipleNegatives(targets=targets, reduction="none")
    torch.testing.assert_close(loss(a[order], b[order]), loss(a, b)[order])


def test_texts_that_are_all_alike_cannot_be_told_apart():
    same = torch.ones(5, 3)
    torch.testing.assert_close(MultipleNegatives()(same, same), torch.tensor(math.log(5)))


def test_a_long_neighbor_takes_the_target_unless_vectors_are_normalized():
    a = torch.tensor([[1.0, 0.1], [5.0, 0.0], [0.0, 1.0]])
    raw, unit = (MultipleNegatives(1.0, normalize, "similarity") for normalize in (False, True))
    torch.testing.assert_close(raw.moved(a, a), torch.tensor(1 / 3))
    assert float(unit.moved(a, a)) == 0
    logits = a @ a.T
    torch.testing.assert_close(raw(a, a), F.cross_entropy(logits, torch.tensor([1, 1, 2])))


def test_the_symmetric_loss_does_not_know_which_side_is_which():
    a, b = pair()
    loss = MultipleNegatives(targets="similarity")
    torch.testing.assert_close(loss(a, b), loss(b, a))


def test_a_learned_scale_begins_where_it_is_told_and_has_a_gradient():
    a, b = pair()
    fixed, learned = MultipleNegatives(7.0), MultipleNegatives(7.0, learned=True)
    loss = learned(a, b)
    torch.testing.assert_close(loss, fixed(a, b))
    loss.backward()
    assert [name for name, _ in learned.named_parameters()] == ["logarithm"]
    assert learned.logarithm.grad != 0
    assert not list(fixed.parameters())


def test_a_zero_vector_gives_a_finite_gradient():
    a, b = pair()
    a[0] = 0
    a.requires_grad_()
    MultipleNegatives()(a, b).backward()
    assert bool(a.grad.isfinite().all())


@pytest.mark.parametrize(
    "options, text",
    [
        ({"scale": 0.0}, "scale=0.0; expected a number > 0"),
        ({"scale": math.nan}, "scale=nan; expected a number > 0"),
        ({"targets": "rows"}, "targets='rows'; expected 'diagonal' or 'similarity'"),
        ({"reduction": "sum"}, "reduction='sum'; expected 'mean' or 'none'"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(TrainingError) as error:
        MultipleNegatives(**options)
    assert str(error.value) == text


def test_embeddings_that_are_no_pairs():
    with pytest.raises(TrainingError, match="embeddings hold 1 samples; expected at least 2"):
        MultipleNegatives()(torch.ones(1, 3), torch.ones(1, 3))
    with pytest.raises(TrainingError, match=r"embeddings have shapes \[\(2, 3\), \(3, 3\)\]"):
        MultipleNegatives()(torch.ones(2, 3), torch.ones(3, 3))
