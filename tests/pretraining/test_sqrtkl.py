from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from modicum.context import Context
from modicum.data import cutmix
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError, TrainingError
from modicum.losses import SqrtKL as Divergence
from modicum.pretraining import pretrain
from modicum.pretraining.bank import corrected_bank_update, ema_bank_update
from modicum.pretraining.learner import Plan, backbone_for
from modicum.pretraining.npid import NPID
from modicum.pretraining.simclr import SimCLR
from modicum.pretraining.sqrtkl import SqrtKL
from modicum.training.recipe import Recipe

RECIPE = Recipe("convnet(width=4)", epochs=2, batch_size=16, optimizer="sgd", lr=0.01)
SMALL = SqrtKL(hidden=16, dimension=8, augment="none", cutmix=0.0)


def data(n=70, seed=0):
    draw = torch.Generator().manual_seed(seed)
    train = Dataset(torch.rand(n, 1, 8, 8, generator=draw), None, info=Info(modality="image"))
    return Splits(train, train[:4], train[:4])


def learner(method, splits=None, seed=0):
    train = (splits or data()).train
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of the head; the training loop does so
        made = method.learner(train, backbone_for(RECIPE, train, seed), Plan(10, 16, 1, seed))

    def batches(size):
        return ((at, train.inputs[at]) for at in torch.arange(len(train)).split(size))

    made.begin(batches)
    return made


def test_without_its_three_parts_it_is_npid():
    sqrtkl = replace(SMALL, coefficient=0.0, bank_update="ema", bank_init="random")
    npid = NPID(temperature=0.2, hidden=16, dimension=8, bank_init="random", augment="none")
    a, b = pretrain(data(), sqrtkl, RECIPE), pretrain(data(), npid, RECIPE)
    torch.testing.assert_close(a.history["loss"], b.history["loss"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(a.learner.bank, b.learner.bank, atol=1e-4, rtol=0)
    assert a.history["backward_flops"] == b.history["backward_flops"]


def test_released_it_is_plain_entropy_maximization_of_half_the_weight():
    a, b = (pretrain(data(), replace(SMALL, parts=parts), RECIPE) for parts in ("both", "plain"))
    torch.testing.assert_close(a.learner.bank, b.learner.bank, atol=1e-4, rtol=0)
    other = pretrain(data(), replace(SMALL, parts="none"), RECIPE)
    assert float((a.learner.bank - other.learner.bank).abs().max()) > 1e-2


@pytest.mark.parametrize("parts", ["both", "entropy", "cross", "plain", "none"])
def test_the_loss_of_a_step(parts):
    mine, x, indices = learner(replace(SMALL, parts=parts)), data().train.inputs[:16], torch.arange(16)
    losses, v = mine(x, None, indices)
    cosines = v @ mine.bank.T
    entropy, cross = Divergence(reduction="none").parts(cosines)
    spread = {"both": entropy + cross, "entropy": entropy, "cross": cross, "plain": entropy / 2, "none": 0}[parts]
    torch.testing.assert_close(
        losses, F.cross_entropy(cosines / 0.2, indices, reduction="none") + 20 * spread, atol=1e-5, rtol=1e-5
    )


def test_the_bank_starts_with_the_features_of_the_untrained_network():
    mine, plain = learner(SMALL), learner(replace(SMALL, bank_init="random"))
    torch.testing.assert_close(mine.bank.norm(dim=1), torch.ones(70))  # the last, partial batch too
    with torch.no_grad():
        torch.testing.assert_close(mine.bank[:14], plain.embed(data().train.inputs[:14]))  # 70 = 5 batches of 14
    assert int(mine.head[1].num_batches_tracked) == 5  # statistics are warmed
    assert int(plain.head[1].num_batches_tracked) == 1


def test_that_pass_is_charged_once():
    ctx, other = Context(), Context()
    pretrain(data(), SMALL, replace(RECIPE, steps=3), ctx)
    pretrain(data(), replace(SMALL, bank_init="random"), replace(RECIPE, steps=3), other)
    a, b = ctx.ledger.total(), other.ledger.total()
    assert a.samples - b.samples == 70
    assert a.backward_flops == b.backward_flops
    assert a.forward_flops > b.forward_flops


@pytest.mark.parametrize("rows", ["candidates", "batch"])
@pytest.mark.parametrize("negatives", [10_000, 30])
@pytest.mark.parametrize("update", ["grad", "ema"])
def test_the_bank_after_a_step(update, negatives, rows):
    mine = learner(replace(SMALL, bank_update=update, negatives=negatives, rows=rows, momentum=0.8))
    x, indices, before = data().train.inputs[:16], torch.randperm(70)[:16], mine.bank.clone()
    torch.manual_seed(3)
    losses, v = mine(x, None, indices)
    torch.manual_seed(3)
    losses.mean().backward()
    others, columns = mine.candidates(indices)
    mine.after()
    among = torch.arange(70) if others is None else others
    assert len(among) == min(46, 70) if negatives == 30 else 70
    p = (v.detach() @ before[among].T / 0.2).softmax(1)
    expected = before.clone()
    if update == "ema":
        expected[indices] = ema_bank_update(before[indices], v.detach(), 0.8)
    elif rows == "batch":
        expected[indices] = corrected_bank_update(before[indices], v.detach(), torch.arange(16), p[:, columns], 0.25)
    else:
        expected[among] = corrected_bank_update(before[among], v.detach(), columns, p, 0.25)
    torch.testing.assert_close(mine.bank, expected)
    changed = (mine.bank != before).any(1)
    assert int(changed.sum()) <= (len(among) if update == "grad" and rows == "candidates" else 16)


def test_candidates_are_the_batch_first_and_then_others():
    mine, indices = learner(replace(SMALL, negatives=30)), torch.tensor([5, 60, 2])
    rows, own = mine.candidates(indices)
    assert rows[:3].tolist() == [5, 60, 2]
    assert own.tolist() == [0, 1, 2]
    assert len(rows.unique()) == len(rows) == 33


def test_mixed_images_have_mixed_targets():
    mine, x, indices = learner(replace(SMALL, cutmix=0.5, coefficient=0.0)), data().train.inputs[:16], torch.arange(16)
    kept = x.clone()
    torch.manual_seed(1)
    losses, v = mine(x, None, indices)
    torch.manual_seed(1)
    _, pair, lam = cutmix(x, 0.5, torch.default_generator)
    assert 0 < lam < 1
    assert torch.equal(x, kept)
    log_p = (v @ mine.bank.T / 0.2).log_softmax(1)
    expected = lam * F.nll_loss(log_p, indices, reduction="none") + (1 - lam) * F.nll_loss(
        log_p, pair, reduction="none"
    )
    torch.testing.assert_close(losses, expected)


def test_one_view_costs_about_half_of_two():
    recipe = replace(RECIPE, model="convnet(width=16)")
    one = pretrain(data(), replace(SMALL, bank_init="random"), recipe).ledger.total()
    two = pretrain(data(), SimCLR(hidden=16, dimension=8, augment="none"), recipe).ledger.total()
    assert one.flops < 0.6 * two.flops


def test_low_precision_keeps_a_single_precision_bank():
    done = pretrain(data(), SMALL, replace(RECIPE, precision="bfloat16"))
    assert done.learner.bank.dtype == torch.float32
    torch.testing.assert_close(done.learner.bank.norm(dim=1), torch.ones(70))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"coefficient": -1.0}, "option coefficient=-1.0; expected a number >= 0"),
        ({"kl_temperature": 0}, "option kl_temperature=0; expected a number > 0"),
        ({"parts": "all"}, "option parts='all'; expected 'both', 'entropy', 'cross', 'plain', 'none'"),
        ({"bank_update": "sgd"}, "option bank_update='sgd'; expected 'grad', 'ema'"),
        ({"rows": "all"}, "option rows='all'; expected 'candidates', 'batch'"),
        (
            {"momentum": 0.0},
            r"option momentum=0.0 with bank_update='grad', whose step is \(1 - m\) / m; expected m > 0",
        ),
        ({"cutmix": -0.5}, "option cutmix=-0.5; expected a number >= 0"),
        ({"hidden": True}, "option hidden=True; expected an integer >= 0"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ModicumError, match=text):
        SqrtKL(**options)


def test_a_sample_twice_or_unknown_is_refused():
    mine, x = learner(SMALL), data().train.inputs[:2]
    with pytest.raises(TrainingError, match="indices holds a position twice"):
        mine(x, None, torch.tensor([3, 3]))
    with pytest.raises(TrainingError, match="indices holds -1, but the bank has 70 rows"):
        mine(x, None, torch.tensor([3, -1]))
