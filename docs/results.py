"""Run the main job on real data of every kind and write docs/results.md and docs/results/*.json.

    python docs/results.py [NAME ...]

The files of `../shared/data` are read where they are; a CSV and an image folder are exported from scikit-learn's sets. Each
table is what `modicum compare ... --json` printed.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import modicum
from modicum.evidence import environment

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
SCORES = '"el2n(runs=3)" "forgetting(runs=1)" aum margin dyn-unc'
CORESETS = "herding k-center-greedy facility-location infobatch hard-samples"
MNIST = "--recipe.model mlp --recipe.epochs 6 --recipe.batch-size 128"
JOBS = {
    "digits": ("scikit-learn's digits", "digits"),
    "mnist": (
        "MNIST, a multilayer perceptron on 54,000 training images",
        f"{SHARED}/mnist.npz --seeds 3 {MNIST} --methods {SCORES} herding infobatch hard-samples",
    ),
    "mnist-convnet": (
        "MNIST, a ConvNet of width 32 on 3,000 training images",
        f'{SHARED}/mnist.npz --limit 3000 --seeds 3 --budgets 30% --recipe.epochs 4 --methods "el2n(runs=1)" margin infobatch',
    ),
    "cifar10-human-labels": (
        "CIFAR-10, 3,000 training images with real human labels of which 40 % are wrong",
        f"{SHARED}/cifar10-train.parquet --label label_worse --limit 3000 --seeds 3 --budgets 50% --recipe.epochs 12 "
        '--methods "el2n(runs=1)" aum margin knn-shapley facility-location infobatch',
    ),
    "csv": ("a CSV: scikit-learn's breast cancer", f"{{csv}} --methods {SCORES} {CORESETS}"),
    "sst2": (
        "SST-2 sentences, a bag of words",
        f"{SHARED}/sst2 --seeds 3 --recipe.epochs 6 --methods {SCORES} {CORESETS}",
    ),
    "image-folder": (
        "a folder of PNG files: scikit-learn's digits",
        f"{{folder}} --seeds 3 --methods {SCORES} {CORESETS}",
    ),
}


def export(scratch: Path) -> dict[str, str]:
    """The files that are made for the purpose."""
    modicum.save(modicum.load("breast_cancer"), scratch / "breast_cancer.csv")
    modicum.save(modicum.load("digits"), scratch / "digits-png")
    return {"{csv}": str(scratch / "breast_cancer-train.csv"), "{folder}": str(scratch / "digits-png")}


def run(name: str, made: dict[str, str]) -> dict[str, Any]:
    """One job through the command line."""
    title, line = JOBS[name]
    words = [made.get(word, word) for word in shlex.split(line)]
    command = [sys.executable, "-m", "modicum", "compare", *words, "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer = json.loads(done.stdout)
    shown = [Path(word).name if word.startswith("/") else word for word in words]
    keys = ("rows", "recommendation", "finished")
    return {
        "title": title,
        "command": " ".join(["modicum compare", *(f'"{w}"' if "(" in w else w for w in shown)]),
        "seconds": round(time.perf_counter() - started, 1),
        "environment": environment(),
        **{key: answer[key] for key in keys},
        "notes": [line for line in answer["note"].splitlines() if line.startswith("Note: ")],
    }


def page() -> str:
    """docs/results.md from the stored answers."""
    parts = [
        "# The main job on real data",
        "",
        "Written by `python docs/results.py`; every number is one that `modicum compare --json` printed. *Cost* is the FLOPs of "
        "choosing and training over those of training on everything; *choosing* is its share. Scores are means over seeds on "
        "the test split, ± one standard deviation.",
    ]
    for name in JOBS:
        path = HERE / "results" / f"{name}.json"
        if not path.is_file():
            continue
        answer = json.loads(path.read_text())
        where = answer["environment"]
        parts += ["", f"## {answer['title'][0].upper()}{answer['title'][1:]}", "", f"    {answer['command']}", ""]
        parts += [f"**{answer['recommendation']['sentence']}** {answer['recommendation']['detail']}", ""]
        parts += [f"{note.removeprefix('Note: ')}" for note in answer["notes"]] + [""]
        columns = list(answer["rows"][0])
        parts += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        parts += ["| " + " | ".join(str(row[c]) for c in columns) + " |" for row in answer["rows"]]
        parts += [
            "",
            f"{answer['seconds']} s in all on {where['cores']} cores, torch {where['torch']}, {where['threads']} threads.",
        ]
    return "\n".join(parts) + "\n"


def main(names: list[str]) -> None:
    """Run the named jobs, or all, and write the page."""
    (HERE / "results").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = export(Path(scratch))
        for name in names or JOBS:
            print(f"== {name}", flush=True)
            answer = run(name, made)
            (HERE / "results" / f"{name}.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
            print(answer["recommendation"]["sentence"], f"({answer['seconds']} s)", flush=True)
    (HERE / "results.md").write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
