import pytest
import torch

from modicum.context import generator
from modicum.distillation.initial import averaged_logits, known_samples, representative_samples
from modicum.errors import DataError, ModicumError

LABELS = torch.arange(3).repeat_interleave(10)


def test_every_known_sample_is_classified_right_and_comes_first_in_the_order() -> None:
    g = generator(0)
    order = (LABELS + torch.rand(30, generator=g)).argsort()
    right = torch.rand(30, generator=g) < 0.6
    counts = torch.tensor([2, 4, 3])
    chosen = known_samples(order, LABELS, counts, [right])
    assert LABELS[chosen].tolist() == LABELS[:1].repeat(2).tolist() + [1] * 4 + [2] * 3
    assert bool(right[chosen].all())
    for c, count in enumerate(counts.tolist()):
        own = [i for i in order.tolist() if LABELS[i] == c and right[i]]
        assert chosen[LABELS[chosen] == c].tolist() == own[:count]


def test_the_next_expert_is_asked_only_when_it_is_needed() -> None:
    asked = []

    def experts(knows):  # type: ignore[no-untyped-def]
        for e, right in enumerate(knows):
            asked.append(e)
            yield right

    none, every = torch.zeros(30, dtype=torch.bool), torch.ones(30, dtype=torch.bool)
    some = none.clone()
    some[[3, 12, 25]] = True
    counts = torch.tensor([2, 1, 1])
    chosen = known_samples(torch.arange(30), LABELS, counts, experts([some, every, every]))
    assert asked == [0, 1]
    assert chosen.tolist() == [3, 0, 12, 25]
    assert known_samples(torch.arange(30), LABELS, counts, [none, none]).tolist() == [0, 1, 10, 20]


def test_a_class_that_is_too_small_gives_its_samples_again() -> None:
    labels, right = torch.tensor([0, 0, 1]), torch.tensor([False, True, True])
    assert known_samples(torch.arange(3), labels, torch.tensor([3, 1]), [right]).tolist() == [1, 0, 1, 2]


def test_averaged_logits_are_means_over_those_who_are_right() -> None:
    g = generator(1)
    told, labels = torch.randn(7, 20, 3, generator=g, dtype=torch.float64), torch.randint(3, (20,), generator=g)
    told[:, 4, labels[4]] = -9  # known to none
    made = averaged_logits(iter(told), labels)
    for j in range(20):
        knows = [z for z in told[:, j] if z.argmax() == labels[j]]
        expected = torch.stack(knows or list(told[:, j])).mean(0)
        torch.testing.assert_close(made[j], expected)


def test_representatives_are_the_nearest_to_their_centers() -> None:
    g = generator(2)
    centers = 20 * torch.randn(3, 4, 5, generator=g)
    noise = torch.randn(3, 4, 6, 5, generator=g)
    noise[:, :, 0] = 0.0
    noise[:, :, 1:] -= noise[:, :, 1:].mean(2, keepdim=True)  # so that the first is the center
    points, labels = (centers[:, :, None] + noise).reshape(72, 5), torch.arange(3).repeat_interleave(24)
    chosen = representative_samples(points, labels, torch.full((3,), 4), seed=0)
    assert sorted(chosen.tolist()) == list(range(0, 72, 6))


@pytest.mark.parametrize("count", [1, 3, 10, 13, 24, 30])
def test_as_many_representatives_as_asked_and_each_another(count: int) -> None:
    points = torch.randn(72, 5, generator=generator(3))
    labels = torch.arange(72) % 3
    chosen = representative_samples(points, labels, torch.full((3,), count), seed=0)
    assert torch.equal(labels[chosen], torch.arange(3).repeat_interleave(count))
    assert len(chosen.unique()) == 3 * min(count, 24)
    assert torch.equal(chosen, representative_samples(points, labels, torch.full((3,), count), seed=0))


def test_samples_that_are_the_same_are_no_trouble() -> None:
    chosen = representative_samples(torch.zeros(6, 2), torch.zeros(6).long(), torch.tensor([3]), seed=0)
    assert len(chosen.unique()) == 3


def test_errors() -> None:
    every = torch.ones(30, dtype=torch.bool)
    with pytest.raises(DataError, match=r"order is \(29,\) and labels \(30,\)"):
        known_samples(torch.arange(29), LABELS, torch.ones(3).long(), [every])
    with pytest.raises(DataError, match=r"labels hold \[10, 10, 10, 0\] samples"):
        known_samples(torch.arange(30), LABELS, torch.ones(4).long(), [every])
    with pytest.raises(DataError, match=r"correct of expert 0 is \(29,\); expected \(30,\)"):
        known_samples(torch.arange(30), LABELS, torch.ones(3).long(), [every[1:]])
    with pytest.raises(DataError, match="logits of 0 experts"):
        averaged_logits([], LABELS)
    with pytest.raises(DataError, match=r"logits of expert 0 are \(4, 3\); expected \(30, c\)"):
        averaged_logits([torch.rand(4, 3)], LABELS)
    with pytest.raises(DataError, match=r"points are \(30,\)"):
        representative_samples(torch.rand(30), LABELS, torch.ones(3).long(), 0)
    with pytest.raises(DataError, match="no sample of class 3"):
        representative_samples(torch.rand(30, 2), LABELS, torch.ones(4).long(), 0)
    with pytest.raises(ModicumError, match="clusters=0; expected an integer >= 1"):
        representative_samples(torch.rand(30, 2), LABELS, torch.ones(3).long(), 0, clusters=0)
