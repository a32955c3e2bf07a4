"""The pages that are written from the code are up to date, and say what is so; links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modicum.methods import FAMILIES, table

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    source = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


def test_pages_are_up_to_date_and_docstrings_complete(build: ModuleType) -> None:
    assert build.check() == []


def test_a_stale_page_is_found(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "DOCS", tmp_path)
    monkeypatch.setattr(build, "problems", list)
    stale = [f"docs/{page}.md is out of date; run `make docs`" for page in ("methods", "api", "benchmarks")]
    assert build.check() == stale
    for path, text in build.pages().items():
        path.write_text(text, encoding="utf-8")
    assert build.check() == []
    (tmp_path / "evidence.json").write_text('{"environment": {}, "methods": []}')
    assert build.check() == stale[:1]


def test_main_answers_with_an_exit_status(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["build.py", "--check"])
    monkeypatch.setattr(build, "check", lambda: ["modicum.x has no docstring"])
    assert build.main() == 1
    assert capsys.readouterr().err == "modicum.x has no docstring\n"
    monkeypatch.setattr(build, "check", list)
    assert build.main() == 0


def test_what_a_docstring_lacks_is_found(build: ModuleType) -> None:
    def bare(x: int, y: int) -> int:
        """Adds."""
        return x + y

    def half(x: int, y: int) -> int:
        """Adds.

        Args:
            x: One number,
                in two lines: like this.

        Example:
            >>> 1 + 1
            2
        """
        return x + y

    def same(x: int, y: int) -> int:
        """Adds; the arguments are those of `half`.

        Example:
            >>> 1 + 1
            2
        """
        return x + y

    assert build.incomplete(bare, "f") == ["f has no Example", "f has no Args", "f has no Returns"]
    assert build.incomplete(half, "f") == ["f has no Returns", "f: argument 'y' is missing from Args"]
    assert build.incomplete(same, "f") == []
    assert build.arguments(str(half.__doc__)) == {"x": "One number, in two lines: like this."}


def test_a_public_name_without_a_docstring_is_found(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from modicum.valuation import el2n

    monkeypatch.setattr(el2n, "__doc__", None)
    found = build.problems()
    assert "modicum.valuation.el2n.el2n has no docstring" in found
    assert "method el2n: nothing public in modicum.valuation.el2n has a Reference" in found


def test_an_option_that_is_not_explained_is_found(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = table()["el2n"]
    monkeypatch.setattr(kind, "__doc__", str(kind.__doc__).replace("runs:", "turns:"))
    assert build.problems() == [
        "method el2n: Args tells of 'turns', which is no option",
        "method el2n: option 'runs' is missing from Args",
    ]


BESIDE = {
    "a-mtrl",
    "cct",
    "pruning-theory",
    "rela-rho",
    "rela-transport",
}  # have evidence, but are no methods of a command


def evidence(holds: bool) -> dict[str, Any]:
    claim = {
        "claim": "|errors| are found",
        "measured": 0.87654,
        "deviation": 0.0123,
        "n": 3,
        "baseline": 0.5,
        "holds": holds,
        "unit": "AUROC",
        "cost_seconds": 1.0,
    }
    row = {"method": "el2n", "seconds": 1.0, "claims": [claim]}
    return {"environment": {"torch": "9.9", "cores": 2}, "methods": [row]}


@pytest.mark.parametrize("holds, verdict, count", [(True, "holds", 1), (False, "**fails**", 0)])
def test_what_was_measured_is_shown_whichever_way_it_came_out(
    build: ModuleType, holds: bool, verdict: str, count: int
) -> None:
    page = build.methods_page(evidence(holds))
    assert f"| \\|errors\\| are found | 0.8765 ± 0.012 AUROC | 0.5 | 3 | {verdict} |" in page
    assert f"on: torch 9.9, cores 2. {count} of 1 claims hold there" in page
    assert page.count("Evidence: no claim was measured") == len(table()) - 1 + len(BESIDE)


def test_without_evidence_the_page_says_so(build: ModuleType) -> None:
    page = build.methods_page(None)
    assert "Nothing was measured yet" in page
    assert page.count("Evidence: not measured yet") == len(table()) + len(BESIDE)


def test_every_method_has_a_card_below_its_family(build: ModuleType) -> None:
    headings = re.findall(r"^#{2,3} (.+)$", build.methods_page(None), re.MULTILINE)
    assert headings[0] == FAMILIES[0].capitalize()
    assert set(headings) == {*map(str.capitalize, FAMILIES), *table(), "Architectures and analyses", *BESIDE}


def test_signatures_are_written_as_people_write_them(build: ModuleType) -> None:
    def f(a: int, *rest: str, b: tuple[int, ...] = (1,), c: Any = table, **more: Any) -> None: ...

    assert build.signature_of(f) == (
        "(a: int, *rest: str, b: tuple[int, ...] = (1,), c: Any = ..., **more: Any) -> None"
    )
    assert " at 0x" not in build.api_page()


@pytest.mark.parametrize(
    "name",
    [
        "index.md",
        "protocol.md",
        "files.md",
        "data.md",
        "mixtures.md",
        "methods.md",
        "api.md",
        "scoring.md",
        "pretraining.md",
    ],
)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", (DOCS / name).read_text(encoding="utf-8")):
        assert target.startswith("https://") or (DOCS / target).exists(), f"{name}: {target} leads nowhere"
