"""The table of all methods, read from the families' export lists."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from modicum.errors import ModicumError
from modicum.scores import Budget, Scores, Selection
from modicum.spec import format_call, parse_call

if TYPE_CHECKING:
    from modicum.context import Context
    from modicum.dataset import Dataset, Splits
    from modicum.distillation.distilled import Distilled
    from modicum.pretraining.learner import Backbone, Learner, Plan
    from modicum.training.order import Sampler
    from modicum.training.recipe import Recipe

__all__ = [
    "FAMILIES",
    "Card",
    "Distiller",
    "Measurement",
    "Method",
    "Pretraining",
    "Selector",
    "Training",
    "Valuation",
    "find",
    "make",
    "need_text",
    "spec",
    "suited",
    "suits",
    "table",
]

FAMILIES = ("comparison", "valuation", "selection", "distillation", "relabeling", "pretraining")


@dataclass(frozen=True)
class Card:
    """What a method is, for the table of methods, the command line and the docs.

    Args:
        key: Its name.
        title: One line.
        paper: Authors, title, year, arXiv number.
        saves: What it makes cheaper: samples, labels, compute, memory.
        tasks: The tasks it works on.
        modalities: The kinds of data it works on.
        growth: The power of the number of samples with which the time of the reading grows, at a fixed share kept.
    """

    key: str
    title: str
    paper: str
    saves: tuple[str, ...]
    tasks: tuple[str, ...] = ("classification",)
    modalities: tuple[str, ...] = ("image", "tabular", "text")
    growth: float = 1.0


class Measurement(Protocol):
    """A frozen dataclass that describes an expensive measurement of a data set and can make it."""

    def measure(self, data: Splits, recipe: Recipe, ctx: Context) -> Any:
        """Make it, or read it from the cache; its cost goes to `ctx.ledger` either way."""
        ...


class Method(Protocol):
    """A frozen dataclass whose fields are the hyper-parameters, defaults as in the paper."""

    card: ClassVar[Card]

    def needs(self) -> tuple[Measurement, ...]:
        """The measurements it reads; they come as arguments in this order."""
        ...


if TYPE_CHECKING:
    from abc import ABCMeta as ProtocolMeta
else:
    ProtocolMeta = type(Protocol)


class _Verb(ProtocolMeta):
    """What has an attribute of a verb's name has the verb only if it can be called: options are named `score` too."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) and callable(instance.score)


@runtime_checkable
class Valuation(Method, Protocol, metaclass=_Verb):
    """Gives every training sample a number."""

    def score(self, data: Splits, ctx: Context, *measured: Any) -> Scores: ...


@runtime_checkable
class Selector(Method, Protocol):
    """Chooses a subset of `data.train` jointly, with weights where it has them."""

    def select(self, data: Splits, budget: Budget, ctx: Context, *measured: Any) -> Selection: ...


@runtime_checkable
class Distiller(Method, Protocol):
    """Makes a synthetic training set."""

    def distill(self, data: Splits, budget: Budget, recipe: Recipe, ctx: Context, *measured: Any) -> Distilled: ...


@runtime_checkable
class Training(Method, Protocol):
    """Trains on all data but visits fewer samples, or for a shorter time."""

    def sampler(self, data: Splits, recipe: Recipe, ctx: Context) -> Sampler | None: ...


@runtime_checkable
class Pretraining(Method, Protocol):
    """Learns a representation without labels."""

    published: ClassVar[Recipe]

    def learner(self, data: Dataset, backbone: Backbone, plan: Plan, *measured: Any) -> Learner:
        """What is trained on the data: the backbone, heads on it, and the loss of a batch."""
        ...


def table() -> dict[str, Any]:
    """Every method by key, in the order of the families and of their export lists.

    Example:
        >>> "el2n" in table()
        True
    """
    found: dict[str, Any] = {}
    for family in FAMILIES:
        module = importlib.import_module(f"modicum.{family}")
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, type) and isinstance(card := getattr(thing, "card", None), Card):
                found[card.key] = thing
    return found


def family_of(method: type[Any]) -> str:
    """The family that a method's class belongs to."""
    return method.__module__.split(".")[1]


def find(key: str) -> Any:
    """The class of a method.

    Raises:
        ModicumError: There is none of that key; the nearest keys are named.
    """
    import difflib

    methods = table()
    if key not in methods:
        near = difflib.get_close_matches(key, methods, n=3) or sorted(methods)
        raise ModicumError(f"method {key!r} is unknown; did you mean {', '.join(near)}? `modicum methods` lists all")
    return methods[key]


def make(text: str) -> Any:
    """A method from its key with options, such as `el2n(runs=1)`.

    Raises:
        ModicumError: The key or an option is unknown.
    """
    key, options = parse_call(text)
    kind = find(key)
    names = [f.name for f in dataclasses.fields(kind)]
    wrong = sorted(set(options) - set(names))
    if wrong:
        raise ModicumError(f"method {key!r} has no option {wrong[0]!r}; its options are {', '.join(names) or 'none'}")
    return kind(**options)


def suits(method: Any, dataset: Dataset) -> bool:
    """Whether the method, or its class, works on data of this kind."""
    return dataset.info.task in method.card.tasks and dataset.info.modality in method.card.modalities


def suited(method: Any, dataset: Dataset) -> Any:
    """The method, where it works on data of this kind.

    Raises:
        ModicumError: It works on another task, or on another kind of data.

    Example:
        >>> import modicum
        >>> suited(make("craig"), modicum.load("iris").train).card.key
        'craig'
    """
    if not suits(method, dataset):
        folder = type(method).__module__.rpartition(".")[0]
        others = [k for k, c in table().items() if c.__module__.rpartition(".")[0] == folder and suits(c, dataset)]
        raise ModicumError(
            f"method {method.card.key!r} is for {' and '.join(method.card.tasks)} of {', '.join(method.card.modalities)} "
            f"data, but {dataset.info.source or 'this'} is {dataset.info.task} of {dataset.info.modality} data; "
            f"expected {'one of ' * bool(others)}{', '.join(others) or 'other data'}"
        )
    return method


def spec(method: Any) -> str:
    """The inverse of `make`: the key with the options that differ from the defaults."""
    changed = {
        f.name: getattr(method, f.name) for f in dataclasses.fields(method) if getattr(method, f.name) != f.default
    }
    return format_call(method.card.key, changed)


def need_text(need: Any) -> str:
    """A measurement with the options that differ from its defaults.

    Example:
        >>> need_text(make("mtt(max_start=4)").needs()[0])
        'Experts(epochs=5)'
    """
    changed = {f.name: getattr(need, f.name) for f in dataclasses.fields(need) if getattr(need, f.name) != f.default}
    return format_call(type(need).__name__, changed)


def as_methods(methods: Sequence[Any]) -> list[Any]:
    """Methods from keys, keys with options, or method objects."""
    return [make(m) if isinstance(m, str) else m for m in methods]
