"""Floating point operations as they really are: counted once per shape by a dispatch mode, then multiplied."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import log2, prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from modicum.errors import ModicumError

__all__ = ["FlopCounter", "FlopTable", "count_flops"]

aten = torch.ops.aten
Formula = Callable[..., int]


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What `count_flops` gives: the operations that ran inside the block.

    The convention: a multiply-add is two, a product of (m, k) and (k, n) is 2 m k n, a convolution is
    2 * batch * positions * out channels * in channels / groups * kernel; elementwise operations, reductions,
    normalization, softmax, pooling, copies and views are 0. Causal attention is counted as full.

    Args:
        flops: Floating point operations so far.
        uncounted: Names of the operations that do arithmetic of another kind and have no formula, sorted.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._uncounted: set[str] = set()

    @property
    def uncounted(self) -> tuple[str, ...]:
        return tuple(sorted(self._uncounted))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", func)
        formula = _FORMULAS.get(packet) or flop_registry.get(packet)
        if formula is None:
            if isinstance(func, torch._ops.HigherOrderOperator):
                return self._higher_order(func, args, kwargs)
            with self:  # in inference mode compound operations arrive whole; their parts have the formulas
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if formula is None:
            if not _is_free(func):
                self._uncounted.add(str(packet))
            return out
        try:
            self.flops += int(formula(*args, **kwargs, out_val=out))
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError):  # a layout the formula does not know
            self._uncounted.add(str(packet))
        return out

    def _higher_order(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if func is torch.ops.higher_order.cond:
            condition, when_true, when_false, operands = args
            with self:
                return (when_true if bool(condition) else when_false)(*operands)
        self._uncounted.add(str(func))
        return func(*args, **kwargs)


@contextmanager
def count_flops() -> Iterator[FlopCounter]:
    """Count the floating point operations of a block: forward, backward, double backward, under `torch.func` too.

    Yields:
        A counter with `flops`, an integer, and `uncounted`, the names of the operations without a formula.

    Example:
        >>> layers = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.ReLU(), torch.nn.Linear(20, 5))
        >>> with count_flops() as forward:
        ...     loss = layers(torch.zeros(4, 10)).sum()
        >>> with count_flops() as backward:
        ...     loss.backward()
        >>> forward.flops, backward.flops, forward.uncounted
        (2400, 3200, ())
    """
    with FlopCounter() as counter:
        yield counter


@dataclass
class _Entry:
    forward: int = 0
    backward: int = 0
    times: int = 0


class FlopTable:
    """FLOPs of the steps of a loop, each distinct shape counted once, in the step itself, and then multiplied.

    On a shape that is new, `forward` and `backward` count what runs inside them; on a known one they do nothing, so
    later steps pay nothing. `charge` enters one step.

    Example:
        >>> layer, table = torch.nn.Linear(3, 2), FlopTable()
        >>> for size in (4, 4, 1):
        ...     inputs = torch.zeros(size, 3)
        ...     with table.forward(size):
        ...         loss = layer(inputs).sum()
        ...     with table.backward(size):
        ...         loss.backward()
        ...     print(table.charge(size))
        (48, 48)
        (48, 48)
        (12, 12)
        >>> table.forward_flops, table.backward_flops
        (108, 108)
    """

    _NOTHING: AbstractContextManager[Any] = nullcontext()

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        self._counted: dict[tuple[str, Hashable], int] = {}
        self._uncounted: set[str] = set()

    def forward(self, key: Hashable) -> AbstractContextManager[Any]:
        """Count the block as the forward pass of this shape, if that is not yet known."""
        return self._NOTHING if ("forward", key) in self._counted else self._count("forward", key)

    def backward(self, key: Hashable) -> AbstractContextManager[Any]:
        """Count the block as the backward pass of this shape, if that is not yet known."""
        return self._NOTHING if ("backward", key) in self._counted else self._count("backward", key)

    @contextmanager
    def _count(self, part: str, key: Hashable) -> Iterator[FlopCounter]:
        with count_flops() as counter:
            yield counter
        self._counted[part, key] = counter.flops
        self._uncounted.update(counter.uncounted)

    def charge(self, key: Hashable, times: int = 1) -> tuple[int, int]:
        """Enter steps of a shape.

        Args:
            key: The shape, as given to `forward` and `backward`.
            times: How many steps.

        Returns:
            FLOPs of one forward and one backward pass (0 when none ran).

        Raises:
            ModicumError: No forward pass of this shape was counted.
        """
        entry = self._entries.get(key)
        if entry is None:
            if ("forward", key) not in self._counted:
                raise ModicumError(f"no step of shape {key!r} was counted; run it inside forward({key!r}) first")
            entry = self._entries[key] = _Entry()
        entry.forward = self._counted["forward", key]
        entry.backward = self._counted.get(("backward", key), 0)
        entry.times += times
        return entry.forward, entry.backward

    @property
    def forward_flops(self) -> int:
        """FLOPs of all forward passes charged so far."""
        return sum(e.forward * e.times for e in self._entries.values())

    @property
    def backward_flops(self) -> int:
        """FLOPs of all backward passes charged so far."""
        return sum(e.backward * e.times for e in self._entries.values())

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the operations without a formula that the counted steps met, sorted."""
        return tuple(sorted(self._uncounted))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on after an interruption."""
        rows = [[key, e.forward, e.backward, e.times] for key, e in self._entries.items()]
        return {"entries": rows, "uncounted": list(self.uncounted)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the charges of an interrupted run; its shapes count as known."""
        self._entries, self._counted, self._uncounted = {}, {}, set(state["uncounted"])
        for key, forward, backward, times in state["entries"]:
            self._entries[key] = _Entry(forward, backward, times)
            self._counted["forward", key] = forward
            if backward:
                self._counted["backward", key] = backward


# -- formulas that PyTorch lacks or has wrong: each is called as formula(*args, **kwargs, out_val=out) ----------------


def _matmul(tokens: int, *weights: Sequence[int]) -> int:
    return 2 * tokens * sum(prod(w) for w in weights)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> int:
    *batch, s, d = query.shape
    return 2 * prod(batch) * s * key.shape[-2] * (d + value.shape[-1])


def _attention_backward(query: Tensor, key: Tensor, value: Tensor) -> int:
    # flash backward forms the scores again: three products of the size of Q K', two of the size of P V
    *batch, s, d = query.shape
    return 2 * prod(batch) * s * key.shape[-2] * (3 * d + 2 * value.shape[-1])


def _convolution_backward(
    grad: Tensor, inputs: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, mask: Sequence[bool], **_: Any
) -> int:  # fmt: skip
    # the gradients of inputs and weights are each as large as the forward pass; PyTorch's formula takes the weights'
    # gradient of a grouped convolution as if there were one group
    positions = prod((inputs if transposed else grad).shape[2:])
    return (int(mask[0]) + int(mask[1])) * 2 * inputs.shape[0] * positions * prod(weight.shape)


def _trilinear(
    i1: Tensor, i2: Tensor, i3: Tensor, e1: Sequence[int], e2: Sequence[int], e3: Sequence[int], summed: Sequence[int],
    unroll: int = 1, **_: Any
) -> int:  # fmt: skip
    # first i1 with i2 over the summed dimensions that i3 lacks, then the result with i3
    shapes = []
    for tensor, expanded in ((i1, e1), (i2, e2), (i3, e3)):
        shape = list(tensor.shape)
        for at in sorted(expanded):
            shape.insert(at, 1)
        shapes.append(shape)
    first = [max(a, b) for a, b in zip(shapes[0], shapes[1])]
    left = [1 if d in summed and d in e3 else size for d, size in enumerate(first)]
    return 2 * prod(first) + 2 * prod(max(a, b) for a, b in zip(left, shapes[2]))


def _mkldnn_rnn(inputs: Tensor, w_inputs: Tensor, w_hidden: Tensor, *_: Any, **__: Any) -> int:
    return _matmul(prod(inputs.shape[:-1]), w_inputs.shape, w_hidden.shape)


def _cudnn_rnn(inputs: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    return _matmul(prod(inputs.shape[:-1]), *(w.shape for w in weights if w.ndim == 2))


def _self_attention(tokens: Tensor, d: int, *weights: Tensor) -> int:
    # the fast path: all projections, then Q K' and P V over every head
    return _matmul(prod(tokens.shape[:-1]), *(w.shape for w in weights)) + 4 * prod(tokens.shape[:-1]) * (
        tokens.shape[-2] * d
    )


def _linear_backward(inputs: Tensor, grad: Tensor, weight: Tensor, mask: Sequence[bool], **_: Any) -> int:
    return (int(mask[0]) + int(mask[1])) * _matmul(prod(inputs.shape[:-1]), weight.shape)


def _fourier(x: Tensor, dims: Sequence[int], real: bool) -> int:
    # the count of the radix-2 algorithm, half of it where one side is real
    return round((2.5 if real else 5) * x.numel() * log2(max(1, prod(x.shape[d] for d in dims))))


def _pairs(n: int) -> int:
    return n * (n - 1) // 2


_KNOWN: dict[str, Formula] = {
    "mv": lambda a, b, **_: _matmul(1, a.shape),
    "addmv": lambda c, a, b, **_: _matmul(1, a.shape),
    "dot": lambda a, b, **_: 2 * a.numel(),
    "vdot": lambda a, b, **_: 2 * a.numel(),
    "addbmm": lambda c, a, b, **_: 2 * a.numel() * b.shape[-1],
    "_addmm_activation": lambda c, a, b, **_: 2 * a.numel() * b.shape[-1],
    "_int_mm": lambda a, b, **_: 2 * a.numel() * b.shape[-1],
    "linear": lambda x, w, b=None, **_: _matmul(prod(x.shape[:-1]), w.shape),
    "linear_backward": _linear_backward,
    "mkldnn_linear": lambda x, w, b=None, **_: _matmul(prod(x.shape[:-1]), w.shape),
    "mkldnn_convolution": lambda x, w, *_, out_val, **__: 2 * x.shape[0] * prod(out_val.shape[2:]) * prod(w.shape),
    "convolution_backward": _convolution_backward,
    "_scaled_dot_product_flash_attention_for_cpu": lambda q, k, v, *_, **__: _attention(q, k, v),
    "_scaled_dot_product_flash_attention_for_cpu_backward": lambda g, q, k, v, *_, **__: _attention_backward(q, k, v),
    "_scaled_dot_product_fused_attention_overrideable": lambda q, k, v, *_, **__: _attention(q, k, v),
    "_scaled_dot_product_fused_attention_overrideable_backward": (
        lambda g, q, k, v, *_, **__: _attention_backward(q, k, v)
    ),
    "_scaled_dot_product_attention_math_for_mps": lambda q, k, v, *_, **__: _attention(q, k, v),
    "_transformer_encoder_layer_fwd": (
        lambda x, d, heads, w_qkv, b_qkv, w_out, b_out, gelu, first, eps, n1, m1, n2, m2, w1, b1, w2, b2, *_, **__: (
            _self_attention(x, d, w_qkv, w_out, w1, w2)
        )
    ),
    "_native_multi_head_attention": (
        lambda q, k, v, d, heads, w_qkv, b_qkv, w_out, *_, **__: _self_attention(q, d, w_qkv, w_out)
    ),
    "mkldnn_rnn_layer": _mkldnn_rnn,
    "mkldnn_rnn_layer_backward": lambda *args, **_: 2 * _mkldnn_rnn(*args),
    "_cudnn_rnn": _cudnn_rnn,
    "_cudnn_rnn_backward": lambda *args, **_: 2 * _cudnn_rnn(*args),
    "miopen_rnn": _cudnn_rnn,
    "miopen_rnn_backward": lambda *args, **_: 2 * _cudnn_rnn(*args),
    "_trilinear": _trilinear,
    "_fft_c2c": lambda x, dims, *_, **__: _fourier(x, dims, real=False),
    "_fft_r2c": lambda x, dims, *_, **__: _fourier(x, dims, real=True),
    "_fft_c2r": lambda x, dims, *_, out_val, **__: _fourier(out_val, dims, real=True),
    "_cdist_forward": lambda a, b, *_, **__: 2 * a.numel() * b.shape[-2],
    "_cdist_backward": lambda g, a, b, *_, **__: 2 * a.numel() * b.shape[-2],
    "_pdist_forward": lambda a, *_, **__: 2 * _pairs(a.shape[0]) * a.shape[1],
    "_pdist_backward": lambda g, a, *_, **__: 2 * _pairs(a.shape[0]) * a.shape[1] * 2,
}
_FORMULAS: dict[Any, Formula] = {getattr(aten, name): f for name, f in _KNOWN.items() if hasattr(aten, name)}
_FORMULAS |= {  # in-place forms
    getattr(aten, f"{packet.__name__}_"): formula
    for packet, formula in {**flop_registry, **_FORMULAS}.items()
    if hasattr(packet, "overloads") and hasattr(aten, f"{packet.__name__}_")
}

# -- what is 0 by convention: tags where PyTorch has them, names for the rest ------------------------------------------

_FREE_TAGS = frozenset(getattr(torch.Tag, tag) for tag in ("pointwise", "reduction") if hasattr(torch.Tag, tag))
_ARITHMETIC = re.compile(
    r"(?<!cu)mm(?!a)|mv|dot|matmul|conv|attention|attn|fft|solve|cholesky|rnn|lstm|gru|linalg|qr(?!t)|svd|(?<!w)eig"
)
_FREE_NAMES = re.compile(
    r"norm|softmax|pool|copy|clone|index|gather|scatter|loss|embedding|dropout|pad|cat$|stack|view|resize|repeat|roll"
    r"|flip|rot90|sort|topk|kthvalue|median|mode$|unique|bincount|hist|cum|bucketize|searchsorted|nonzero|mask|select"
    r"|slice|split|unfold|im2col|col2im|fill|zero|ones|like$|^new_|full|empty|rand|normal|uniform|bernoulli|multinomial"
    r"|exponential|geometric|cauchy|poisson|binomial|gamma|dirichlet|philox|upsample|grid_sampler|affine_grid|quantize"
    r"|tri[lu]|diag|trace$|_foreach|_fused_(adam|sgd|adagrad)|shuffle|set_|detach|lift|pin_memory|local_scalar|assert"
    r"|^_?is_|^t_$|isin|equal|allclose|complex|polar|take|put|to_|^_to|aminmax|logsumexp|segment_reduce|renorm|elu|sigmoid"
    r"|softplus|hard|threshold|rsub|lerp|shrink|_backward_jvp|as_strided|alias|transpose|squeeze|reshape|expand"
    r"|coalesce|_cross_entropy|glu|xlogy|mish|divide|^(eq|ne|ge|gt|le|lt)_$|_nested|_sdp_choice|^dist$|^addr|record_stream|amp_|hash|cross$|range|space|fused_moving_avg|interface"
    r"|^(sum|mean|std|var|std_mean|var_mean|prod|amax|amin|argmax|argmin|max|min|any|all)(_|$)"
)
_FREE_EXACTLY = frozenset(
    {"linalg_vector_norm", "linalg_cross", "_linalg_check_errors", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"}
    | {"_thnn_fused_lstm_cell_backward_impl", "_thnn_fused_gru_cell_backward", "_cudnn_rnn_flatten_weight"}
)


def _is_free(func: Any) -> bool:
    if _FREE_TAGS.intersection(func.tags) or func.is_view or func.namespace in ("prim", "profiler", "c10d"):
        return True
    if not any("Tensor" in str(argument.type) for argument in func._schema.arguments):
        return True
    if func.namespace != "aten":
        return False
    name = func._schema.name.removeprefix("aten::")
    plain = getattr(getattr(aten, name.removesuffix("_"), None), "default", None)
    if name.endswith("_") and plain is not None and _FREE_TAGS.intersection(plain.tags):
        return True  # in-place forms do not all carry the tag
    return name in _FREE_EXACTLY or (not _ARITHMETIC.search(name) and bool(_FREE_NAMES.search(name)))
