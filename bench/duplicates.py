"""Near-equal texts against datasketch's MinHashLSH, and near-equal image codes against all pairs.

    python bench/duplicates.py --peer-python PYTHON

Texts: both get the same texts in memory, cut them into sets of runs of three words, look for candidates by MinHash with 128
functions and measure every candidate exactly; their clocks run from the texts to the pairs. The peer lives in an environment
of its own (`pip install datasketch`). It runs once with the bands that it chooses and once with ours. Before any time is
reported, the pairs of both are compared with the true ones, found by counting what every two sets share.

Codes: 64 bits that are drawn at random, a tenth of them near-copies; the answers must be equal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import compare, seconds_of, write
from scipy import sparse

from modicum.data.leaders import leaders_of_codes, leaders_of_points
from modicum.data.minhash import bands_for, near_pairs, shingles
from modicum.data.written import Written

SCRIPT = Path(__file__).parent / "peers" / "datasketch_pairs.py"
Pairs = set[tuple[int, int]]


def texts_of(n: int) -> list[str]:
    """Half of them drawn from words of Zipf's frequencies, half copies in which up to 15 % of the words are other."""
    draw = np.random.default_rng(0)
    texts = [draw.zipf(1.3, length) % 20_000 for length in draw.integers(15, 60, n // 2)]
    for text in texts[: n // 2]:
        other = draw.random(len(text)) < draw.uniform(0, 0.15)
        texts.append(np.where(other, draw.zipf(1.3, len(text)) % 20_000, text))
    return [" ".join(f"w{word}" for word in text) for text in texts]


def ours(texts: list[str], near: float) -> Pairs:
    """Pairs (later, earlier)."""
    later, earlier, _ = near_pairs(shingles(Written.of_texts(texts, {})), near)
    return set(zip(later.tolist(), earlier.tolist(), strict=True))


def truth(texts: list[str], near: float) -> Pairs:
    """All pairs of sets whose Jaccard index is at least `near`, by counting what they share."""
    number: dict[str, int] = {}
    rows, columns = [], []
    for i, text in enumerate(texts):
        words = text.split()
        for run in {" ".join(words[j : j + 3]) for j in range(max(1, len(words) - 2))}:
            rows.append(i)
            columns.append(number.setdefault(run, len(number)))
    sets = sparse.csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=(len(texts), len(number)))
    shared, sizes = (sets @ sets.T).tocoo(), np.bincount(rows)
    union = sizes[shared.row] + sizes[shared.col] - shared.data
    hit = (shared.row > shared.col) & (shared.data >= near * union)
    return set(zip(shared.row[hit].tolist(), shared.col[hit].tolist(), strict=True))


def codes_of(n: int) -> Any:
    """Random codes; the last tenth differs in up to two bits from the first."""
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 1 << 63, n, dtype=np.uint64) * np.uint64(2) + draw.integers(0, 2, n, dtype=np.uint64)
    for _ in range(2):
        codes[-(n // 10) :] = codes[: n // 10] ^ (np.uint64(1) << draw.integers(0, 64, n // 10).astype(np.uint64))
    return codes


def all_pairs(codes: Any, most: int) -> Any:
    """Every code against every one that is kept, by matrix products."""
    bits = (codes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    signs = torch.from_numpy(bits * 2.0 - 1).float() / 8
    return leaders_of_points(lambda rows: signs[rows], len(codes), (most / 16) ** 0.5 + 1e-4)[0]


def main() -> int:
    """Compare the pairs, then the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    peer_python = Path(__file__).resolve().parents[1] / ".venv-peers" / "bin" / "python"
    parser.add_argument("--peer-python", default=str(peer_python), help="python of an environment with datasketch")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--codes", type=int, default=100_000)
    parser.add_argument("--near", type=float, default=0.8, help="Jaccard index")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    versions: dict[str, Any] = {}
    texts = texts_of(options.texts)
    right, found = truth(texts, options.near), ours(texts, options.near)
    if not found <= right:
        print(f"{len(found - right)} of our pairs are below {options.near}; no time is reported", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "texts.txt"), Path(folder, "answer.npy")
        given.write_text("\n".join(texts), encoding="utf-8")
        for bands in ((0, 0), bands_for(options.near)):

            def other(bands: tuple[int, int] = bands, given: Path = given, answer: Path = answer) -> float:
                command = [options.peer_python, str(SCRIPT), str(given), str(answer), str(options.near)]
                out = subprocess.run([*command, *map(str, bands)], check=True, capture_output=True, text=True).stdout
                versions.update(json.loads(out))
                return float(versions.pop("seconds"))

            other()
            theirs = {(int(a), int(b)) for a, b in np.load(answer)}
            used = "x".join(map(str, versions.pop("bands")))
            if len(theirs - right) or len(found) < len(theirs) * 0.995:
                print(f"we find {len(found)} pairs, datasketch {len(theirs)}; no time is reported", file=sys.stderr)
                return 1
            times = compare(lambda: seconds_of(lambda: ours(texts, options.near)), other, options.repeats)
            versions.pop("bands", None)
            recall = {"found": round(len(found) / len(right), 4), "peer_found": round(len(theirs) / len(right), 4)}
            rows.append({"what": "texts", "n": len(texts), "peer": "datasketch", "peer_bands": used, **recall, **times})
    codes = codes_of(options.codes)
    if not np.array_equal(leaders_of_codes(codes, 4)[0], all_pairs(codes, 4)):
        print("the near codes differ from those of all pairs; no time is reported", file=sys.stderr)
        return 1
    times = compare(
        lambda: seconds_of(lambda: leaders_of_codes(codes, 4)), lambda: seconds_of(lambda: all_pairs(codes, 4)), 1
    )
    rows.append({"what": "image codes", "n": len(codes), "peer": "all pairs", "found": 1.0, "peer_found": 1.0, **times})
    write(
        "duplicates",
        rows,
        what="Near-equal texts (Jaccard index of runs of three words) and near-equal image codes (4 of 64 bits)",
        versions=versions,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
