"""Which methods find wrong labels that people really gave? Writes docs/labels.md and docs/results/labels-*.json.

    python docs/labels.py [SET ...]

Rows that are there already are kept; delete the JSON to measure them again.

CIFAR-10 with the labels of one annotator (17 % wrong), and with the worst of three (40 % wrong), read from
`../shared/data`. Methods that read features read those of a ConvNet trained on the same wrong labels. The validation
labels are as wrong as the training labels. Each row is what `modicum score ... --truth label --json` printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from modicum.evidence import environment

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
SETS = {
    "one-annotator": ("label_random1", "CIFAR-10, the labels of one annotator"),
    "worst-of-three": ("label_worse", "CIFAR-10, the worst of three labels"),
}
RECIPE = [
    "--recipe.model",
    "convnet(width=32)",
    "--recipe.epochs",
    "30",
    "--recipe.batch-size",
    "128",
    "--recipe.lr",
    "0.02",
]
LIMIT, SECONDS = "4000", "60"
ENCODED = "encoder='trained'"
METHODS = (
    f"knn-shapley(k=10, {ENCODED})",
    f"knn-shapley(k=10, utility='soft', {ENCODED})",
    f"knn-banzhaf(k=10, {ENCODED})",
    f"threshold-knn-shapley({ENCODED})",
    f"loo(learner='knn', k=10, {ENCODED})",
    f"lava({ENCODED})",
    f"influence({ENCODED})",
    f"data-oob({ENCODED})",
    f"data-shapley({ENCODED})",
    f"data-banzhaf({ENCODED})",
    f"beta-shapley({ENCODED})",
    "aum",
    "el2n(runs=2)",
    "forgetting(runs=1)",
    "margin",
    "tracin(against='self')",
)


def run(label: str, method: str) -> dict[str, Any]:
    """One method through the command line."""
    data = str(SHARED / "cifar10-train.parquet")
    words = ["--label", label, "--truth", "label", "--limit", LIMIT, "--curves", "none", "--max-seconds", SECONDS]
    command = [sys.executable, "-m", "modicum", "score", data, "--method", method, *words, *RECIPE, "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        return {"method": method, "error": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    answer = json.loads(done.stdout)
    found = answer["detection"]
    return {
        "method": method,
        "precision": found["precision"],
        "auroc": found["auroc"],
        "wrong": found["wrong"],
        "of": found["of"],
        "stability": answer["stability"],
        "note": answer["note"].partition("\n")[0] if answer["note"] else "",
        "seconds": round(time.perf_counter() - started, 1),
    }


def page() -> str:
    """docs/labels.md from the stored answers."""
    words = f"--truth label --limit {LIMIT} --max-seconds {SECONDS} {' '.join(RECIPE)}"
    parts = [
        "# Which methods find wrong labels that people really gave?",
        "",
        "Written by `python docs/labels.py`; every number is one that `modicum score --json` printed. *Precision* is the share of "
        "wrong labels among as many most suspicious samples as there are wrong ones; *AUROC* the probability that a wrong label is "
        "more suspicious than a right one (0.5: no better than chance). Methods that read features read those of a ConvNet trained "
        "on the same wrong labels; the validation labels are as wrong. *Seconds* are those of the command, measurements that an "
        "earlier row had made already not made again; other work ran on the machine meanwhile.",
    ]
    for name, (label, title) in SETS.items():
        path = HERE / "results" / f"labels-{name}.json"
        if not path.is_file():
            continue
        stored = json.loads(path.read_text())
        good = sorted((r for r in stored["rows"] if "error" not in r), key=lambda r: -r["auroc"])
        share = good[0]["wrong"] / good[0]["of"]
        parts += ["", f"## {title}: {good[0]['wrong']:,} of {good[0]['of']:,} are wrong ({100 * share:.1f} %)", ""]
        parts += [f"    modicum score cifar10-train.parquet --label {label} {words} --method KEY", ""]
        parts += ["| method | precision % | AUROC | seconds |", "| --- | --- | --- | --- |"]
        parts += [
            f"| `{r['method']}` | {100 * r['precision']:.1f} | {r['auroc']:.3f} | {r['seconds']:.0f} |" for r in good
        ]
        parts += [f"| a random order | {100 * share:.1f} | 0.500 | 0 |"]
        parts += ["", *(f"`{r['method']}` did not run: {r['error']}" for r in stored["rows"] if "error" in r)]
        where = stored["environment"]
        parts += [f"{where['cores']} cores, torch {where['torch']}, {where['threads']} threads."]
    return "\n".join(parts) + "\n"


def main(names: list[str]) -> None:
    """Run the named sets, or all, and write the page."""
    (HERE / "results").mkdir(exist_ok=True)
    for name in names or SETS:
        path = HERE / "results" / f"labels-{name}.json"
        before = json.loads(path.read_text()) if path.is_file() else {"recipe": None}
        rows = before["rows"] if before["recipe"] == RECIPE else []
        for method in [m for m in METHODS if m not in {row["method"] for row in rows}]:
            rows.append(run(SETS[name][0], method))
            print(rows[-1], flush=True)
            stored = {"set": name, "recipe": RECIPE, "environment": environment(), "rows": rows}
            path.write_text(json.dumps(stored, indent=1) + "\n")
    (HERE / "labels.md").write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
