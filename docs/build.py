"""Write docs/methods.md and docs/api.md from the code, so that they cannot say anything else.

python docs/build.py            write the pages
python docs/build.py --check    change nothing; fail when a page is out of date or a docstring is missing or incomplete
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import modicum
from modicum.methods import FAMILIES, Card, Distiller, Pretraining, Selector, Valuation, family_of, need_text, table

DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/build.py (`make docs`): change the code, not this page. -->"
SECTIONS = ("Args", "Returns", "Yields", "Raises", "Example", "Reference")
MATHEMATICS = tuple(f"modicum.{family}" for family in FAMILIES if family != "comparison")
SAME_AS = "the arguments are those of"
PLAIN = (int, float, str, bool, type(None), tuple)


# -- docstrings --------------------------------------------------------------------------------------------------------


def sections(doc: str) -> dict[str, str]:
    """The parts of a docstring by heading; what comes before the first heading is under the empty name."""
    parts: dict[str, list[str]] = {"": []}
    name = ""
    for line in inspect.cleandoc(doc).splitlines():
        heading = line.removesuffix(":")
        if line != heading and heading in SECTIONS:
            name = heading
            parts[name] = []
        else:
            parts[name].append(line)
    return {key: "\n".join(lines).strip("\n") for key, lines in parts.items()}


def arguments(doc: str) -> dict[str, str]:
    """What the section `Args` says about each argument."""
    found: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(sections(doc).get("Args", "")).splitlines():
        start = re.match(r"(\w[\w, *]*|\*+\w+): (.*)", line)
        if start:
            name = start[1].lstrip("*")
            found[name] = start[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def summary(thing: Any) -> str:
    """The first line of a docstring, in one line."""
    return " ".join(own_doc(thing).split("\n\n")[0].split())


def own_doc(thing: Any) -> str:
    """The docstring that was written for this very thing, not inherited and not made by `dataclass`."""
    doc = thing.__dict__.get("__doc__") if inspect.isclass(thing) else getattr(thing, "__doc__", None)
    made = inspect.isclass(thing) and (doc or "").startswith(f"{thing.__name__}(")
    return inspect.cleandoc(doc) if doc and not made else ""


# -- the public names --------------------------------------------------------------------------------------------------


def modules() -> Iterator[ModuleType]:
    """Every module with public names, the package itself first."""
    yield modicum
    for found in pkgutil.walk_packages(modicum.__path__, "modicum."):
        if not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            if hasattr(module, "__all__"):
                yield module


def at_home(module: ModuleType, thing: Any) -> bool:
    """Whether a public name is a function or class that this module defines."""
    return (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == module.__name__


def problems() -> list[str]:
    """What is missing from docstrings: any at all of a public name, and the parts that the mathematics must have."""
    found = []
    for module in modules():
        if not module.__doc__:
            found.append(f"{module.__name__} has no docstring")
        for name in module.__all__:
            thing, where = getattr(module, name), f"{module.__name__}.{name}"
            if at_home(module, thing) and not own_doc(thing):
                found.append(f"{where} has no docstring")
            if inspect.isfunction(thing) and (module is modicum or module.__name__ in MATHEMATICS):
                found += incomplete(thing, where)
    for key, kind in table().items():
        told = arguments(own_doc(kind))
        options = [f.name for f in dataclasses.fields(kind)]
        found += [f"method {key}: option {name!r} is missing from Args" for name in options if name not in told]
        found += [f"method {key}: Args tells of {name!r}, which is no option" for name in told if name not in options]
        public = [kind, *mathematics(kind)]
        if family_of(kind) != "comparison" and not any("Reference" in sections(own_doc(thing)) for thing in public):
            found.append(f"method {key}: nothing public in {kind.__module__} has a Reference")
    return sorted(set(found))


def incomplete(function: Any, where: str) -> list[str]:
    """The parts that the docstring of a function lacks.

    An example always; arguments and result where there are several arguments, for one is told in the first line; a
    reference is asked for once a method.
    """
    doc, signature = own_doc(function), inspect.signature(function)
    names = [name for name in signature.parameters if name != "self"]
    there = sections(doc)
    needed = {"Example": True}
    if SAME_AS not in doc:
        needed["Args"] = len(names) > 1
        needed["Returns"] = len(names) > 1 and signature.return_annotation not in (None, "None")
    missing = [f"{where} has no {part}" for part, needs in needed.items() if needs and part not in there]
    told = {each.strip() for name in arguments(doc) for each in name.split(",")}
    if "Args" in there:
        missing += [f"{where}: argument {name!r} is missing from Args" for name in names if name not in told]
    return missing


def mathematics(kind: type[Any]) -> list[Any]:
    """What is public in the file of a method and no method: functions, and what works in a loop of one's own."""
    module = sys.modules[kind.__module__]
    return [thing for name in module.__all__ if callable(thing := getattr(module, name)) and not is_method(thing)]


def is_method(thing: Any) -> bool:
    return isinstance(getattr(thing, "card", None), Card)


# -- signatures --------------------------------------------------------------------------------------------------------


def signature_of(thing: Any) -> str:
    """The arguments as people write them; defaults that are not plain values are an ellipsis."""
    if inspect.isclass(thing) and (getattr(thing, "_is_protocol", False) or issubclass(thing, Exception)):
        return ""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    marks: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parts, keyword_only = [], False
    for parameter in signature.parameters.values():
        stars = marks.get(parameter.kind, "")
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parts.append("*")
        keyword_only |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        text = f"{stars}{parameter.name}{annotation_of(parameter.annotation, ': ')}"
        parts.append(text + default_of(parameter))
    result = "" if inspect.isclass(thing) else annotation_of(signature.return_annotation, " -> ")
    return f"({', '.join(parts)}){result}"


def annotation_of(annotation: Any, before: str) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    return before + (annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))


def default_of(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ""
    equals = "=" if parameter.annotation is parameter.empty else " = "
    short = isinstance(parameter.default, PLAIN) and len(repr(parameter.default)) <= 40
    return equals + (repr(parameter.default) if short else "...")


# -- docs/api.md -------------------------------------------------------------------------------------------------------


def api_page() -> str:
    """One line for each public name of each module."""
    lines = [NOTE, "", "# Public names", "", "One line a name: how it is called and what it does.", ""]
    for module in modules():
        lines += [f"## {module.__name__}", "", summary(module), ""]
        lines += [name_line(module, name) for name in sorted(module.__all__, key=str.lower)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def name_line(module: ModuleType, name: str) -> str:
    thing = getattr(module, name)
    if at_home(module, thing):
        return f"- `{name}{signature_of(thing)}`: {summary(thing)}"
    home = str(getattr(thing, "__module__", ""))
    if (inspect.isfunction(thing) or inspect.isclass(thing)) and home != module.__name__:
        return f"- [`{name}`](#{home.replace('.', '')}): {summary(thing)}"
    value = repr(thing)
    return f"- `{name}`" + (f" = `{value}`" if isinstance(thing, PLAIN) and len(value) <= 100 else " (a constant)")


# -- docs/methods.md ---------------------------------------------------------------------------------------------------


def methods_page(evidence: dict[str, Any] | None) -> str:
    """A card for each method, family by family, with what was measured."""
    lines = [NOTE, "", "# Methods", ""]
    lines += ["`modicum methods` prints this as a table. An option is given in brackets: `el2n(runs=1)`.", ""]
    lines += environment_lines(evidence)
    claims = {row["method"]: row["claims"] for row in (evidence or {}).get("methods", [])}
    methods = table()
    for family in FAMILIES:
        about = sections(own_doc(importlib.import_module(f"modicum.{family}")))[""]
        lines += [f"## {family.capitalize()}", "", about, ""]
        for key, kind in methods.items():
            if family_of(kind) == family:
                source = f"evidence/{family}/{key.replace('-', '_')}.py"
                lines += [*card_lines(key, kind), *evidence_lines(source, claims.get(key), evidence is not None), ""]
    beside = {path.stem.replace("_", "-"): path for path in sorted((DOCS.parent / "evidence").glob("*/*.py"))}
    lines += ["## Architectures and analyses", "", "What is no method of a command, but promises something.", ""]
    for key in sorted(set(beside) - set(methods)):
        source = str(beside[key].relative_to(DOCS.parent))
        lines += [f"### {key}", "", *evidence_lines(source, claims.get(key), evidence is not None), ""]
    return "\n".join(lines).rstrip() + "\n"


def environment_lines(evidence: dict[str, Any] | None) -> list[str]:
    if evidence is None:
        return ["Nothing was measured yet: `make evidence` writes docs/evidence.json, which is shown here.", ""]
    claims = [claim for row in evidence["methods"] for claim in row["claims"]]
    where = ", ".join(f"{name} {value}" for name, value in evidence["environment"].items())
    held = sum(claim["holds"] for claim in claims)
    return [
        f"Measured by `modicum evidence` on: {where}. {held} of {len(claims)} claims hold there; those that fail are "
        "shown as failing.",
        "",
    ]


def card_lines(key: str, kind: type[Any]) -> list[str]:
    """What a method is, what it saves and needs, its options, and how it is called."""
    card, doc = kind.card, own_doc(kind)
    lines = [f"### {key}", "", f"**{card.title}.**", "", sections(doc)[""], ""]
    lines.append(f"- Saves: {', '.join(card.saves) or 'nothing; it is what there is to save from'}")
    lines.append(f"- Needs: {', '.join(need_of(need) for need in kind().needs()) or 'no measurement'}")
    lines.append(f"- Works on: {', '.join(card.tasks)}; {', '.join(card.modalities)}")
    paper = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", card.paper)
    lines.append(f"- Paper: {'none, it is a control' if paper == 'control' else paper}")
    lines += [
        f"- Mathematics: `modicum.{family_of(kind)}.{thing.__name__}"
        f"({', '.join(inspect.signature(thing).parameters)})`: {summary(thing)}"
        for thing in mathematics(kind)
        if thing.__name__ in importlib.import_module(f"modicum.{family_of(kind)}").__all__
    ]
    options = dataclasses.fields(kind)
    if options:
        told = arguments(doc)
        lines += ["", "| option | default | meaning |", "|---|---|---|"]
        lines += [f"| `{f.name}` | `{f.default!r}` | {cell(told.get(f.name, ''))} |" for f in options]
    return [*lines, "", *call_lines(key, kind), ""]


def need_of(need: Any) -> str:
    trainings = need.trainings()
    cost = f", as much as {trainings:g} training{'s' if trainings != 1 else ''} on all data" if trainings else ""
    return f"`{need_text(need)}`{cost}"


def call_lines(key: str, kind: type[Any]) -> list[str]:
    """The calls that the method understands, in Python and on the command line."""
    made, python, command = kind(), [], []
    if isinstance(made, Valuation):
        python.append(f'scores = modicum.score("digits", "{key}")')
        command.append(f"modicum score digits --method {key}")
    if isinstance(made, (Valuation, Selector)):
        python.append(f'kept = modicum.select("digits", "{key}", keep=0.3)')
        command.append(f"modicum select digits --method {key} --keep 30%")
    if isinstance(made, Distiller):
        python.append(f'small = modicum.distill("digits", "{key}", per_class=10)')
        command.append(f"modicum distill digits --method {key} --keep 10/class")
    if isinstance(made, Pretraining):
        data = "sst2" if kind.card.modalities == ("text",) else "digits"
        python.append(f'done = modicum.pretrain("{data}", "{key}")')
        command.append(f"modicum pretrain {data} --method {key}")
    else:
        python.append(f'found = modicum.compare("digits", ["{key}"])')
        command.append(f"modicum compare digits --methods {key}")
    return ["```python", *python, "```", "```sh", *command, "```"]


def evidence_lines(source: str, claims: list[dict[str, Any]] | None, measured: bool) -> list[str]:
    """What is promised and what came out, whichever way."""
    if not claims:
        return [f"Evidence: {'no claim was measured' if measured else 'not measured yet'} ({source})."]
    lines = ["| evidence | measured | baseline | n | holds |", "|---|---|---|---|---|"]
    for claim in claims:
        came = f"{claim['measured']:.4g} ± {claim['deviation']:.2g} {claim['unit']}"
        verdict = "holds" if claim["holds"] else "**fails**"
        lines.append(f"| {cell(claim['claim'])} | {cell(came)} | {claim['baseline']:.4g} | {claim['n']} | {verdict} |")
    return lines


def claims_table(evidence: dict[str, Any] | None, family: str, pattern: str) -> list[str]:
    """The claims of a family whose text matches, best first, a row a method."""
    rows = []
    for row in (evidence or {}).get("methods", []):
        found = [c for c in row["claims"] if re.search(pattern, c["claim"])]
        if found and (DOCS.parent / "evidence" / family / f"{row['method'].replace('-', '_')}.py").is_file():
            rows.append((row["method"], found[0]))
    lines = ["| method | measured | beside | n | holds |", "|---|---|---|---|---|"]
    for method, claim in sorted(rows, key=lambda pair: -pair[1]["measured"]):
        came = f"{claim['measured']:.1f} ± {claim['deviation']:.1f}"
        verdict = "yes" if claim["holds"] else "**no**"
        lines.append(f"| `{method}` | {came} | {claim['baseline']:.1f} | {claim['n']} | {verdict} |")
    return lines


def with_claims(text: str, evidence: dict[str, Any] | None) -> str:
    """A page with its tables of claims written anew, each between `<!-- claims FAMILY: PATTERN -->` and `<!-- end -->`."""

    def table(found: re.Match[str]) -> str:
        return "\n".join([found[1], *claims_table(evidence, found[2], found[3]), "<!-- end -->"])

    return re.sub(r"(<!-- claims (\w+): (.*?) -->)\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def _script(name: str) -> str:
    """The benchmark that wrote these results; those of a family begin with its name."""
    scripts = {path.stem: path.relative_to(DOCS.parent) for path in (DOCS.parent / "bench").rglob("*.py")}
    return str(scripts.get(name) or scripts[name.partition("_")[2]])


def benchmarks_page() -> str:
    """The tables of bench/results, as they were measured."""
    parts = [
        "# Benchmarks",
        "",
        "Written by `make docs` from `bench/results`, which `make bench` measures. In each, ours and the peer run in turn in one "
        "session on the same data, and their answers are compared before any time is reported. A ratio above 1 means that "
        "ours is faster; it is the median of the pairs, with the least and the greatest.",
    ]
    for path in sorted((DOCS.parent / "bench" / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        where, rows = found["environment"], found["rows"]
        peer = found.get("peer", "")
        against = ", ".join(f"{k} {v}" for k, v in peer.items()) if isinstance(peer, dict) else peer
        parts += ["", f"## {found.get('what', found['benchmark'])}", ""]
        parts += [
            f"Against {against}." if against else "",
            f"`python {_script(path.stem)}`, {where['processor']}, {where['cores']} cores, "
            f"{where['threads']} threads, Python {where['python']}, torch {where['torch']}, NumPy {where['numpy']}.",
            "",
        ]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        parts += ["| " + " | ".join(c.replace("_", " ") for c in columns) + " |", "|" + " --- |" * len(columns)]
        for row in rows:
            cells = (f"{row[c]:.3g}" if isinstance(row.get(c), float) else cell(str(row.get(c, ""))) for c in columns)
            parts.append("| " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


# -- the command -------------------------------------------------------------------------------------------------------


def pages() -> dict[Path, str]:
    """The text of every page that is written from the code."""
    file = DOCS / "evidence.json"
    evidence = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    written = {
        DOCS / "methods.md": methods_page(evidence),
        DOCS / "api.md": api_page(),
        DOCS / "benchmarks.md": benchmarks_page(),
    }
    for path in sorted(DOCS.glob("*.md")):
        if path not in written and "<!-- claims " in (text := path.read_text(encoding="utf-8")):
            written[path] = with_claims(text, evidence)
    return written


def check() -> list[str]:
    """Pages that are out of date, and docstrings that lack something."""
    stale = [
        f"docs/{path.name} is out of date; run `make docs`"
        for path, text in pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    return [*stale, *problems()]


def main() -> int:
    """Write or check; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when something is not right")
    if parser.parse_args().check:
        wrong = check()
    else:
        wrong = problems()
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
            print(f"docs/{path.name}: {len(text.splitlines())} lines")
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
