"""Runs in an environment with datasketch: pairs of near-equal texts by MinHashLSH, every candidate measured on the sets.

    python datasketch_pairs.py TEXTS ANSWER NEAR BANDS ROWS

TEXTS holds one text a line; BANDS 0 leaves the choice of bands to datasketch.
"""

import importlib.metadata
import json
import sys
import time

import numpy as np
from datasketch import MinHash, MinHashLSH

given, answer, near, bands, rows = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
with open(given, encoding="utf-8") as handle:
    texts = handle.read().splitlines()
started = time.perf_counter()
sets = []
for text in texts:
    words = text.split()
    sets.append({" ".join(words[i : i + 3]).encode() for i in range(max(1, len(words) - 2))})
signatures = MinHash.bulk(sets, num_perm=128, seed=1)
params = (bands, rows) if bands else None
lsh = MinHashLSH(threshold=near, num_perm=128, params=params)
pairs = []
for i, signature in enumerate(signatures):
    for j in lsh.query(signature):
        common = len(sets[i] & sets[j])
        if common >= near * (len(sets[i]) + len(sets[j]) - common):
            pairs.append((i, j))
    lsh.insert(i, signature, check_duplication=False)
seconds = time.perf_counter() - started
np.save(answer, np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2))
print(json.dumps({"seconds": seconds, "bands": [lsh.b, lsh.r], "datasketch": importlib.metadata.version("datasketch")}))
