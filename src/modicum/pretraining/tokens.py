"""What learning from hidden tokens shares: which tokens are hidden, how they are guessed, and what is refused."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modicum.dataset import Dataset
from modicum.errors import ModicumError
from modicum.models import Transformer
from modicum.pretraining.learner import Backbone

__all__ = [
    "MaskedHead",
    "check_texts",
    "choose_positions",
    "embed_masked",
    "hide_tokens",
    "mean_in_batch",
    "sample_tokens",
    "transformer_of",
]

BLOCK = 1 << 16  # rows that are looked at together


def choose_positions(x: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions to hide, drawn without replacement among the tokens of each text.

    A text of m tokens gets k = max(1, min(floor((share + 0.005) L), round(share m))) of them. All rows have places for
    the largest k, so that a batch costs the same whatever its texts; the places that are not used point anywhere.

    Args:
        x: (b, L) token numbers, 0 for padding.
        share: Of the tokens, in (0, 1).
        generator: Of the draw.

    Returns:
        (b, K) positions, all different within a row, and (b, K) which of them are chosen.

    Example:
        >>> positions, chosen = choose_positions(torch.tensor([[7, 8, 9, 0]]), 0.5, torch.Generator().manual_seed(0))
        >>> positions.shape, chosen.tolist()
        (torch.Size([1, 2]), [[True, True]])
    """
    present = x != 0
    most = max(1, math.floor((share + 0.005) * x.shape[1]))
    tokens = present.sum(1)
    wanted = (share * tokens.double()).round().clamp(1, most).long().minimum(tokens)
    draw = torch.rand(x.shape, generator=generator).to(x.device)
    positions = draw.masked_fill(~present, 2.0).topk(most, 1, largest=False).indices
    return positions, torch.arange(most, device=x.device) < wanted[:, None]


def hide_tokens(
    x: Tensor,
    positions: Tensor,
    chosen: Tensor,
    vocabulary: int,
    generator: torch.Generator,
    *,
    masked: float,
    random: float = 0.0,
) -> Tensor:
    """Texts in which the chosen tokens are masked, exchanged for random ones, or left as they are.

    Args:
        x: (b, L) token numbers.
        positions: (b, K) from `choose_positions`.
        chosen: (b, K) from `choose_positions`.
        vocabulary: Number V of tokens; the mask is token V.
        generator: Of the draw.
        masked: Probability that a chosen token becomes the mask.
        random: Probability that it becomes any token but padding.

    Returns:
        (b, L) token numbers up to V.

    Example:
        >>> x, at = torch.tensor([[7, 8, 9]]), torch.tensor([[2]])
        >>> hide_tokens(x, at, at > 0, 10, torch.Generator().manual_seed(0), masked=1.0).tolist()
        [[7, 8, 10]]
    """
    own = x.gather(1, positions)
    draw = torch.rand(own.shape, generator=generator).to(x.device)
    new = own.masked_fill(draw < masked, vocabulary)
    if random:
        others = torch.randint(1, vocabulary, own.shape, generator=generator).to(x.device)
        new = torch.where((draw >= masked) & (draw < masked + random), others, new)
    return x.scatter(1, positions, torch.where(chosen, new, own))


def sample_tokens(logits: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
    """Tokens drawn from softmax(logits / T), in float32, without a gradient.

    The distribution is that of the largest of logits / T + Gumbel noise, but one random number a position is enough
    where the noise takes one a token of the vocabulary: the place of u ~ U(0, 1) among the cumulated probabilities.

    Args:
        logits: (..., V).
        generator: Of the draw.
        temperature: T > 0.

    Returns:
        (...) token numbers.

    Example:
        >>> sure = torch.tensor([[0.0, 100.0, 0.0]])
        >>> sample_tokens(sure, torch.Generator().manual_seed(0)).tolist()
        [1]
    """
    with torch.no_grad():
        # whatever the precision of the network: rounded probabilities of a large vocabulary would not sum to one
        cumulated = (logits.detach().float() / temperature).softmax(-1).cumsum(-1)
        u = torch.rand((*logits.shape[:-1], 1), generator=generator).to(logits.device)
        places = torch.searchsorted(cumulated, u * cumulated[..., -1:], right=True)
    return places.squeeze(-1).clamp(max=logits.shape[-1] - 1)


def embed_masked(network: Transformer, x: Tensor, mask: Tensor) -> Tensor:
    """(b, L, width) embedded tokens, where token V, one more than there are, is the mask.

    Args:
        network: Gives the embeddings of the other tokens, and the positions.
        x: (b, L) token numbers up to V.
        mask: (width,) the embedding of the mask.

    Returns:
        What `network.encode` reads.

    Example:
        >>> network = Transformer(10, 4, 1, width=8)
        >>> h = embed_masked(network, torch.tensor([[7, 10]]), torch.zeros(8))
        >>> bool((h[0, 1] == network.positions[1]).all())
        True
    """
    hidden = x == network.embedding.num_embeddings
    plain = network.embed(x.masked_fill(hidden, 0))
    return torch.where(hidden[..., None], mask + network.positions[: x.shape[1]], plain)


class MaskedHead(nn.Module):
    """From states to logits of tokens: a linear layer, GELU, LayerNorm, and the transposed embeddings with a bias.

    The products are divided by the square root of the width of the embeddings, whose entries begin with variance 1.

    Args:
        width: Of the states.
        embedding: Width of the embeddings.
        vocabulary: Number of tokens.

    Example:
        >>> MaskedHead(4, 8, 100)(torch.rand(2, 3, 4), torch.rand(100, 8)).shape
        torch.Size([2, 3, 100])
    """

    def __init__(self, width: int, embedding: int, vocabulary: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, embedding), nn.GELU(), nn.LayerNorm(embedding))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, h: Tensor, embeddings: Tensor) -> Tensor:
        """(..., V) logits of states (..., width) with embeddings (V, embedding)."""
        return F.linear(self.body(h) * embeddings.shape[1] ** -0.5, embeddings, self.bias)


def mean_in_batch(losses: Tensor, counted: Tensor) -> Tensor:
    """A number a text, whose mean over the batch is the mean of the losses that are counted in it.

    Args:
        losses: (b, k).
        counted: (b, k) which of them count.

    Returns:
        (b,).

    Example:
        >>> mean_in_batch(torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[True, True], [True, False]])).mean()
        tensor(3.)
    """
    sums = losses.masked_fill(~counted, 0.0).sum(1)
    return sums * (len(sums) / counted.sum().clamp(min=1))


def transformer_of(backbone: Backbone, key: str) -> Transformer:
    """The transformer inside a backbone.

    Raises:
        ModicumError: It is another network.

    Example:
        >>> transformer_of(Backbone(Transformer(10, 4, 1, width=8), 8), "electra").positions.shape
        torch.Size([4, 8])
    """
    if not isinstance(backbone.network, Transformer):
        raise ModicumError(
            f"model is a {type(backbone.network).__name__}; method {key!r} needs states of tokens, "
            "expected 'transformer' with options or a factory that makes a modicum.models.Transformer"
        )
    return backbone.network


def check_texts(data: Dataset, network: Transformer) -> int:
    """The number of tokens of a data set that can be learned from.

    Args:
        data: Texts as rows of token numbers.
        network: What will read them.

    Returns:
        The size of the vocabulary.

    Raises:
        ModicumError: A token number is not in the vocabulary, a text is empty or too long, or there are too few tokens.

    Example:
        >>> import modicum
        >>> data = modicum.load((["a good film", "a bad film"] * 10, [1, 0] * 10)).train
        >>> check_texts(data, Transformer(len(data.info.vocabulary), 3, 1, width=8))
        6
    """
    vocabulary = len(data.info.vocabulary)
    if vocabulary < 3:
        raise ModicumError(
            f"info.vocabulary has {vocabulary} tokens; expected at least 3: padding, the unknown and a word"
        )
    if network.embedding.num_embeddings != vocabulary:
        raise ModicumError(
            f"model has embeddings for {network.embedding.num_embeddings} tokens, but info.vocabulary has {vocabulary}; "
            "expected the same number"
        )
    if data.inputs.shape[1] > len(network.positions):
        raise ModicumError(
            f"inputs have {data.inputs.shape[1]} tokens a text, but the model has {len(network.positions)} positions; "
            "cut the texts or make a longer model"
        )
    for part, inputs in data.batches(BLOCK):
        wrong = ((inputs < 0) | (inputs >= vocabulary)).any(1)
        empty = (inputs == 0).all(1)
        if bool((bad := wrong | empty).any()):
            row = int(bad.nonzero()[0])
            what = "holds only padding" if bool(empty[row]) else f"holds token numbers outside 0..{vocabulary - 1}"
            raise ModicumError(
                f"inputs: sample {data.ids[part][row].item()!r} {what}; expected at least one token of info.vocabulary, "
                "drop such texts or give them the unknown token 1"
            )
    return vocabulary
