import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.dataset import Dataset, Info
from modicum.errors import ModicumError
from modicum.models import MLP, Transformer
from modicum.pretraining.learner import Backbone
from modicum.pretraining.tokens import (
    MaskedHead,
    check_texts,
    choose_positions,
    embed_masked,
    hide_tokens,
    mean_in_batch,
    sample_tokens,
    transformer_of,
)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def texts(lengths, width, vocabulary=20):
    x = torch.randint(1, vocabulary, (len(lengths), width), generator=draw(3))
    return x.masked_fill(torch.arange(width) >= torch.tensor(lengths)[:, None], 0)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=6),
    share=st.sampled_from([0.05, 0.15, 0.4, 0.9]),
    seed=st.integers(0, 99),
)
def test_as_many_tokens_as_asked_for_are_chosen_and_none_twice(lengths, share, seed):
    x = texts(lengths, 25)
    positions, chosen = choose_positions(x, share, draw(seed))
    most = max(1, math.floor((share + 0.005) * 25))
    assert positions.shape == chosen.shape == (len(x), most)
    for row, length in enumerate(lengths):
        mine = positions[row][chosen[row]]
        assert len(mine) == len(set(mine.tolist())) == max(1, min(most, round(share * length)))
        assert int(mine.max()) < length


def test_every_token_is_chosen_as_often_as_the_others():
    x = torch.full((20_000, 10), 5)
    positions, chosen = choose_positions(x, 0.3, draw())
    counts = torch.bincount(positions[chosen], minlength=10) / len(x)
    torch.testing.assert_close(counts, torch.full((10,), 0.3), atol=0.015, rtol=0)


def test_an_empty_row_gets_nothing():
    _, chosen = choose_positions(torch.tensor([[0, 0, 0], [4, 5, 0]]), 0.5, draw())
    assert chosen.sum(1).tolist() == [0, 1]


def test_the_right_share_is_masked_exchanged_and_left():
    x = torch.full((20_000, 10), 5)
    positions, chosen = choose_positions(x, 0.2, draw())
    new = hide_tokens(x, positions, chosen, 8, draw(1), masked=0.8, random=0.1).gather(1, positions)[chosen]
    shares = [float((new == token).float().mean()) for token in (8, 5, 0)]
    assert shares == pytest.approx([0.8, 0.1 + 0.1 / 7, 0.0], abs=0.01)
    assert set(new.tolist()) == {1, 2, 3, 4, 5, 6, 7, 8}


def test_what_is_not_chosen_stays():
    x = texts([3, 9, 1], 9)
    positions, chosen = choose_positions(x, 0.3, draw())
    before, new = x.clone(), hide_tokens(x, positions, chosen, 20, draw(1), masked=1.0)
    assert torch.equal(x, before)
    assert int((new != x).sum()) == int((new == 20).sum()) == int(chosen.sum())
    assert not (new == 20)[x == 0].any()


def test_samples_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    for temperature in (1.0, 0.5):
        found = sample_tokens(logits.expand(40_000, 4), draw(), temperature)
        shares = torch.bincount(found, minlength=4) / len(found)
        torch.testing.assert_close(shares, (logits / temperature).softmax(0), atol=0.01, rtol=0)


def test_samples_of_coarse_logits_are_drawn_in_float32():
    vocabulary = 1000
    found = sample_tokens(torch.zeros(4000, vocabulary, dtype=torch.bfloat16), draw())
    assert int(found.min()) >= 0
    assert int(found.max()) < vocabulary
    assert len(found.unique()) > 0.95 * vocabulary  # 1 - exp(-4) of them; in bfloat16 the sum stops growing early
    assert float(found.float().mean()) == pytest.approx(vocabulary / 2, rel=0.05)


def test_a_sample_has_no_gradient_and_no_impossible_token():
    logits = torch.tensor([[-math.inf, 3.0, -math.inf]] * 1000, requires_grad=True)
    found = sample_tokens(logits, draw())
    assert not found.requires_grad
    assert found.unique().tolist() == [1]


def test_the_mask_is_embedded_by_itself():
    torch.manual_seed(0)
    network, mask = Transformer(20, 4, 1, width=8), torch.randn(8)
    x = torch.tensor([[3, 20, 5, 0]])
    h = embed_masked(network, x, mask)
    torch.testing.assert_close(h[0, 1], mask + network.positions[1])
    assert torch.equal(h[:, [0, 2, 3]], network.embed(torch.tensor([[3, 1, 5, 0]]))[:, [0, 2, 3]])


def test_the_head_begins_with_logits_of_moderate_size():
    torch.manual_seed(0)
    logits = MaskedHead(16, 64, 500)(torch.randn(50, 16), torch.randn(500, 64))
    assert float(logits.detach().std()) == pytest.approx(1.0, abs=0.2)


def test_a_mean_over_the_batch_of_rows_of_different_length():
    losses = torch.tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0]])
    counted = torch.tensor([[True, True, False], [True, False, False]])
    each = mean_in_batch(losses, counted)
    torch.testing.assert_close(each, torch.tensor([2.0, 8 / 3]))
    torch.testing.assert_close(each.mean(), losses[counted].mean())
    assert mean_in_batch(losses, torch.zeros_like(counted)).tolist() == [0, 0]


VOCABULARY = ("", "?", "a", "b", "c")


@pytest.mark.parametrize(
    "rows, ids, vocabulary, text",
    [
        ([[2, 5], [2, 3]], None, VOCABULARY, "inputs: sample 0 holds token numbers outside 0..4"),
        ([[2, 3], [-1, 3]], ["x", "y"], VOCABULARY, "inputs: sample 'y' holds token numbers outside 0..4"),
        (
            [[2, 3], [0, 0]],
            ["x", "y"],
            VOCABULARY,
            "inputs: sample 'y' holds only padding; expected at least one token",
        ),
        ([[1, 1]], None, VOCABULARY[:2], "info.vocabulary has 2 tokens; expected at least 3"),
        ([[1, 1]], None, VOCABULARY[:4], "model has embeddings for 5 tokens, but info.vocabulary has 4"),
        ([[1, 1, 1]], None, VOCABULARY, "inputs have 3 tokens a text, but the model has 2 positions"),
    ],
)
def test_texts_that_cannot_be_learned_from(rows, ids, vocabulary, text):
    data = Dataset(torch.tensor(rows), ids=ids, info=Info("unlabeled", "text", vocabulary=vocabulary))
    with pytest.raises(ModicumError) as error:
        check_texts(data, Transformer(5, 2, 1, width=8))
    assert text in str(error.value)


def test_a_network_without_states_of_tokens():
    with pytest.raises(ModicumError, match="model is a MLP; method 'electra' needs states of tokens, expected 'transf"):
        transformer_of(Backbone(MLP((4,), 2, hidden=8), 8), "electra")
