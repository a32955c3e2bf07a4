"""The rules that every method and every module keeps, so that adding one cannot be done by halves."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from modicum.errors import ModicumError
from modicum.evidence import _load
from modicum.methods import (
    FAMILIES,
    Card,
    Distiller,
    Pretraining,
    Selector,
    Training,
    Valuation,
    family_of,
    find,
    make,
    spec,
    table,
)
from modicum.spec import parse_call

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "modicum"
MODULES = sorted(SOURCE.rglob("*.py"))
TABLE = table()
CONTROLS = {"full", "short"}  # two keys in one file: comparison/controls.py
BESIDE = {  # promise something, but are no verb
    "a-mtrl": "analysis",
    "cct": "models",
    "pruning-theory": "analysis",
    "rela-rho": "analysis",
    "rela-transport": "analysis",
}
OTHER_TEXTS = {
    "encoder": ("inputs", "trained"),
    "init": ("real", "noise"),
    "augment": ("none",),
    "model": ("auto", "linear", "convnet(width=16)"),
}

# -- what a method is --------------------------------------------------------------------------------------------------


def exported(family: str) -> list[type[Any]]:
    module = importlib.import_module(f"modicum.{family}")
    return [thing for name in module.__all__ if isinstance(thing := getattr(module, name), type)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_class_has_a_card_and_is_in_the_table(family: str) -> None:
    kinds = [kind for kind in exported(family) if hasattr(kind, "needs") or hasattr(kind, "card")]
    assert kinds
    for kind in kinds:
        assert isinstance(kind.card, Card), kind
        assert TABLE[kind.card.key] is kind, f"{kind} and {TABLE[kind.card.key]} have the same key"
        assert family_of(kind) == family


@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_with_a_card_is_exported(family: str) -> None:
    names = {kind.__name__ for kind in exported(family)}
    for path in (SOURCE / family).glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(part, ast.AnnAssign) and part.value and ast.unparse(part.target) == "card"
                for part in node.body
            ):
                assert node.name in names, f"{path.name}: {node.name} is not in the export list of {family}"


@pytest.mark.parametrize("key", TABLE)
class TestMethod:
    def test_its_key_is_its_file_name(self, key: str) -> None:
        assert key == key.lower()
        assert "_" not in key
        file = Path(str(sys.modules[TABLE[key].__module__].__file__))
        assert file.stem.replace("_", "-") == ("controls" if key in CONTROLS else key)

    def test_it_is_a_frozen_dataclass_with_a_default_for_every_option(self, key: str) -> None:
        made = TABLE[key]()
        for field in dataclasses.fields(made):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(made, field.name, field.default)
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            made.anything = 1
        assert made == TABLE[key]()
        assert hash(made) == hash(TABLE[key]())

    def test_its_card_says_everything(self, key: str) -> None:
        card = TABLE[key].card
        assert card.title
        assert card.paper == "control" or any(character.isdigit() for character in card.paper), "the year is missing"
        assert set(card.saves) <= {"samples", "labels", "compute", "memory"}
        assert card.saves or key == "full"
        assert set(card.tasks) <= {"classification", "regression", "unlabeled"}
        assert card.tasks
        assert set(card.modalities) <= {"image", "tabular", "text"}
        assert card.modalities

    def test_it_does_one_thing_and_says_what_it_needs(self, key: str) -> None:
        made = TABLE[key]()
        assert sum(isinstance(made, verb) for verb in (Valuation, Selector, Distiller, Training, Pretraining)) == 1
        for need in made.needs():
            assert callable(need.measure)
            assert need.trainings() >= 0
            assert hash(need) == hash(dataclasses.replace(need))

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
    @given(draw=st.data())
    def test_text_and_method_are_the_same_thing(self, key: str, draw: st.DataObject) -> None:
        changed = {}
        for field in dataclasses.fields(TABLE[key]):
            if draw.draw(st.booleans(), label=f"change {field.name}"):
                changed[field.name] = draw.draw(values_like(field.name, field.default), label=field.name)
        try:
            made = TABLE[key](**changed)
        except ModicumError:
            reject()  # one option rules out another
        assert make(spec(made)) == made
        assert spec(make(spec(made))) == spec(made)
        for name, value in changed.items():
            assert (name in parse_call(spec(made))[1]) == (value != getattr(TABLE[key](), name))

    def test_without_options_its_text_is_its_key(self, key: str) -> None:
        assert spec(TABLE[key]()) == key
        assert make(key) == TABLE[key]()
        assert find(key) is TABLE[key]

    def test_an_unknown_option_is_answered_with_those_there_are(self, key: str) -> None:
        names = ", ".join(field.name for field in dataclasses.fields(TABLE[key])) or "none"
        with pytest.raises(ModicumError) as error:
            make(f"{key}(no_such_option=1)")
        assert str(error.value) == f"method {key!r} has no option 'no_such_option'; its options are {names}"

    def test_it_has_evidence_that_can_run(self, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        path = ROOT / "evidence" / family_of(TABLE[key]) / f"{key.replace('-', '_')}.py"
        assert path.is_file(), f"{key} promises nothing: {path.relative_to(ROOT)} is missing"
        monkeypatch.setattr(sys, "path", [*sys.path])
        assert callable(_load(path).run)

    def test_it_has_a_conformance_line(self, key: str) -> None:
        assert key in conformance_lines(family_of(TABLE[key]))


def values_like(name: str, default: Any) -> st.SearchStrategy[Any]:
    if isinstance(default, str):
        return st.sampled_from(OTHER_TEXTS.get(name, (default,)))
    if isinstance(default, tuple):
        return st.just(default)
    if name == "permutations":
        return st.integers(2, 72)  # of a jigsaw there are no more that are unlike each other
    return st.integers(1, 1000) if isinstance(default, int) else st.floats(0.01, 0.99)


def conformance_lines(family: str) -> set[str]:
    """The keys of the table `LINES` of a family's conformance test."""
    path = ROOT / "tests" / "conformance" / f"test_{family}.py"
    assert path.is_file(), f"{path.relative_to(ROOT)} is missing"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LINES":
            assert isinstance(node.value, ast.Dict)
            return {str(ast.literal_eval(key)) for key in node.value.keys if key is not None}
    raise AssertionError(f"{path.relative_to(ROOT)} has no table LINES")


@pytest.mark.parametrize("family", FAMILIES)
def test_no_conformance_line_is_left_over(family: str) -> None:
    assert conformance_lines(family) == {key for key, kind in TABLE.items() if family_of(kind) == family}


def test_no_evidence_is_left_over() -> None:
    files = {path.stem.replace("_", "-"): path.parent.name for path in (ROOT / "evidence").glob("*/*.py")}
    assert files == {key: family_of(kind) for key, kind in TABLE.items()} | BESIDE


# -- what a wrong text is answered with --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("el3n", "method 'el3n' is unknown; did you mean el2n? `modicum methods` lists all"),
        (
            "herdin(encoder='inputs')",
            "method 'herdin' is unknown; did you mean herding, dino? `modicum methods` lists all",
        ),
        ("el2n(", "'el2n(' is not a name with options; expected for example 'el2n' or 'el2n(runs=1)'"),
        ("el2n(3)", "'el2n(3)' is not a name with options; expected for example 'el2n' or 'el2n(runs=1)'"),
        ("", "'' is not a name with options; expected for example 'el2n' or 'el2n(runs=1)'"),
    ],
)
def test_a_wrong_text_is_answered_with_what_is_right(text: str, message: str) -> None:
    with pytest.raises(ModicumError) as error:
        make(text)
    assert str(error.value) == message


def test_a_key_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(ModicumError) as error:
        find("zzzzzz")
    assert str(error.value) == (
        f"method 'zzzzzz' is unknown; did you mean {', '.join(sorted(TABLE))}? `modicum methods` lists all"
    )


def test_spaces_in_a_text_do_not_matter() -> None:
    assert spec(make(" el2n( runs = 1 ) ")) == "el2n(runs=1)"


# -- what a module is --------------------------------------------------------------------------------------------------


def named(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem not in ("__init__", "__main__")], ids=named)
def test_every_module_says_what_is_public(path: Path) -> None:
    assert any(is_all(node) for node in ast.parse(path.read_text()).body), f"{named(path)} has no __all__"


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "__init__.py" and p.parent != SOURCE], ids=named)
def test_a_folder_is_its_docstring_and_its_export_list(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{named(path)} has no docstring"
    rest = tree.body[1:]
    for node in rest:
        assert isinstance(node, ast.ImportFrom) or is_all(node), f"{named(path)}:{node.lineno} is neither"
    if path.parent.name in FAMILIES:
        assert any(is_all(node) for node in rest)


# -- imports point downwards only --------------------------------------------------------------------------------------

NOUNS = ("errors", "spec", "dataset", "ledger", "store", "scores", "context", "methods")
TOOLS = ("flops", "arrays", "reading", "evidence", "options")  # stand on the nouns and on nothing else
LAYERS: tuple[tuple[str, ...], ...] = (
    (*NOUNS, *TOOLS),
    ("data", "models", "losses"),
    ("training",),
    ("measurement",),
    tuple(family for family in FAMILIES if family not in ("comparison", "relabeling", "distillation")),
    ("relabeling", "distillation"),  # around a base of another family; beside selections as controls
    ("analysis",),
    ("comparison",),
    ("report",),
    ("verbs",),
    ("sklearn",),
    ("cli",),
    ("__main__",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and first part below `modicum` of every import, wherever it stands; names for type checkers are no imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield from imports(node)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names = (
                [str(node.module)] if node.module != "modicum" else [f"modicum.{alias.name}" for alias in node.names]
            )
        for name in names:
            package, _, rest = name.partition(".")
            if package == "modicum":
                yield node.lineno, rest.partition(".")[0]


def upward(own: str, tree: ast.AST) -> list[str]:
    """The imports that point sideways or up."""
    assert own in LAYER, f"{own} has no layer yet; give it one in LAYERS"
    return [
        f"line {line}: {own} imports {target or 'the package itself'}"
        for line, target in imports(tree)
        if target != own and not (target in LAYER and (LAYER[target] < LAYER[own] or LAYER[target] == LAYER[own] == 0))
    ]


@pytest.mark.parametrize("path", [p for p in MODULES if p != SOURCE / "__init__.py"], ids=named)
def test_imports_point_downwards_only(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert upward(own, ast.parse(path.read_text())) == []


def test_the_package_itself_imports_nothing_until_it_is_asked() -> None:
    assert list(imports(ast.parse((SOURCE / "__init__.py").read_text()))) == []


@pytest.mark.parametrize(
    "own, text",
    [
        ("dataset", "from modicum.data import load"),
        ("training", "def f():\n    import modicum.measurement.traces"),
        ("valuation", "from modicum.selection.herding import herding"),
        ("measurement", "from modicum import comparison"),
        ("verbs", "import modicum"),
    ],
)
def test_an_import_that_points_upwards_is_found(own: str, text: str) -> None:
    assert len(upward(own, ast.parse(text))) == 1


def test_names_for_type_checkers_are_no_imports() -> None:
    assert upward("methods", ast.parse("if TYPE_CHECKING:\n    from modicum.training.fit import Sampler")) == []
