import torch

from modicum.models import Transformer
from modicum.models.text import mean_of_tokens


def test_the_states_of_tokens_are_what_the_features_are_the_mean_of():
    torch.manual_seed(0)
    network, x = Transformer(20, 6, 2, width=8, heads=2), torch.tensor([[3, 4, 5, 0, 0, 0], [7, 8, 9, 3, 2, 1]])
    states = network.tokens(x)
    assert states.shape == (2, 6, 8)
    assert torch.equal(network.encode(network.embed(x), x != 0), states)
    assert torch.equal(mean_of_tokens(states, x != 0), network.features(x))
    torch.testing.assert_close(network.features(x)[0], states[0, :3].mean(0))


def test_padding_changes_no_state():
    torch.manual_seed(0)
    network, x = Transformer(20, 6, 2, width=8, heads=2), torch.tensor([[3, 4, 5]])
    longer = torch.tensor([[3, 4, 5, 0, 0, 0]])
    torch.testing.assert_close(network.tokens(longer)[:, :3], network.tokens(x))


def test_works_in_half_precision():
    network, x = Transformer(20, 6, 2, width=8, heads=2), torch.tensor([[3, 4, 0]])
    with torch.autocast("cpu", torch.bfloat16):
        assert bool(network(x).isfinite().all())
