import pytest
import torch
import torch.nn.functional as F

from modicum.context import Context
from modicum.dataset import Dataset, Info, Splits
from modicum.errors import ModicumError, TrainingError
from modicum.pretraining import pretrain
from modicum.pretraining.learner import Plan, backbone_for
from modicum.pretraining.npid import NPID
from modicum.training.recipe import Recipe

RECIPE = Recipe("convnet(width=4)", epochs=1, batch_size=16, optimizer="sgd", lr=0.01)


def data(n=64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    train = Dataset(torch.rand(n, 1, 8, 8, generator=draw), None, info=Info(modality="image"))
    return Splits(train, train[:4], train[:4])


def learner(method, splits=None, seed=0):
    train = (splits or data()).train
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of the head; the training loop does so
        return method.learner(train, backbone_for(RECIPE, train, seed), Plan(10, 16, 1, seed))


def test_the_loss_is_cross_entropy_over_the_bank_and_the_row_moves_half_way():
    mine, x, indices = learner(NPID(augment="none", dimension=8)), data().train.inputs[:16], torch.arange(16)
    before = mine.bank.clone()
    losses, v = mine(x, indices, indices)
    torch.testing.assert_close(losses, F.cross_entropy(v @ before.T / 0.1, indices, reduction="none"))
    assert torch.equal(mine.bank, before)  # written after the update of the weights
    losses.mean().backward()
    mine.after()
    torch.testing.assert_close(mine.bank[:16], F.normalize((before[:16] + v.detach()) / 2, dim=1))
    assert torch.equal(mine.bank[16:], before[16:])
    after = mine.bank.clone()
    mine.after()  # nothing is left to write
    assert torch.equal(mine.bank, after)


def test_in_an_epoch_every_row_changes_once():
    writes = []
    done = pretrain(data(), NPID(augment="none", dimension=8, bank_init="random"), RECIPE)
    started = learner(NPID(augment="none", dimension=8, bank_init="random"))
    assert bool((done.learner.bank != started.bank).any(1).all())
    torch.testing.assert_close(done.learner.bank.norm(dim=1), torch.ones(64))
    mine = learner(NPID(augment="none", dimension=8))
    mine.write = lambda indices, v: writes.append(indices)
    for part in torch.randperm(64).split(16):
        mine(data().train.inputs[part], part, part)
        mine.after()
    assert torch.cat(writes).bincount().tolist() == [1] * 64


def test_the_pull_to_the_own_row():
    x, indices = data().train.inputs[:16], torch.arange(16)
    plain, _ = learner(NPID(augment="none", dimension=8))(x, indices, indices)
    mine = learner(NPID(augment="none", dimension=8, proximal=30.0))
    losses, v = mine(x, indices, indices)
    torch.testing.assert_close(losses, plain + 30 * (v - mine.bank[:16]).square().sum(1))


def test_noise_instead_of_all_rows_learns_too():
    done = pretrain(data(), NPID(augment="none", dimension=8, negatives=20, bank_init="features"), RECIPE)
    assert bool(done.learner.loss.log_z.isfinite())
    full = pretrain(data(), NPID(augment="none", dimension=8, bank_init="features"), RECIPE)
    assert done.ledger.total().flops < full.ledger.total().flops


def test_the_head_is_linear_unless_it_is_said():
    assert len(learner(NPID(augment="none")).head) == 1
    assert len(learner(NPID(augment="none", hidden=16)).head) == 7


def test_no_labels_are_used():
    ctx = Context()
    pretrain(data(), NPID(augment="none", dimension=8), RECIPE, ctx)
    assert ctx.ledger.total().labels == 0


@pytest.mark.parametrize(
    "options, text",
    [
        ({"temperature": 0.0}, "option temperature=0.0; expected a number > 0"),
        ({"momentum": 1.0}, r"option momentum=1.0; expected a number in \[0, 1\)"),
        ({"negatives": -1}, "option negatives=-1; expected an integer >= 0"),
        ({"negatives": 1.5}, "option negatives=1.5; expected an integer >= 0"),
        ({"dimension": 0}, "option dimension=0; expected an integer > 0"),
        ({"proximal": float("nan")}, "option proximal=nan; expected a number >= 0"),
        ({"bank_init": "zeros"}, "option bank_init='zeros'; expected 'features', 'random', 'uniform'"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ModicumError, match=text):
        NPID(**options)


def test_a_sample_twice_or_unknown_is_refused():
    mine, x = learner(NPID(augment="none", dimension=8)), data().train.inputs[:2]
    with pytest.raises(TrainingError, match="indices holds a position twice"):
        mine(x, None, torch.tensor([3, 3]))
    with pytest.raises(TrainingError, match="indices holds 64, but the bank has 64 rows"):
        mine(x, None, torch.tensor([3, 64]))
