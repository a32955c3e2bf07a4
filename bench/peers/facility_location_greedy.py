"""Runs in an environment with apricot-select and submodlib-py: greedy facility location on a matrix of similarities."""

import importlib.metadata
import json
import sys
import time

import numpy as np

which, given, answer, k = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
similarities = np.load(given)
n = len(similarities)
if which == "apricot":
    from apricot import FacilityLocationSelection

    package = "apricot-select"
    small = np.ascontiguousarray(similarities[:200, :200], dtype=np.float64)
    FacilityLocationSelection(5, metric="precomputed", optimizer="lazy").fit(small)  # compiled before the clock starts
    started = time.perf_counter()
    picks = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy").fit(similarities).ranking
else:
    from submodlib.functions.facilityLocation import FacilityLocationFunction

    package = "submodlib-py"
    started = time.perf_counter()
    function = FacilityLocationFunction(n=n, mode="dense", sijs=similarities, separate_rep=False)
    found = function.maximize(budget=k, optimizer="LazyGreedy", stopIfZeroGain=False, show_progress=False)
    picks = np.array([at for at, _ in found])
seconds = time.perf_counter() - started
np.save(answer, np.asarray(picks, dtype=np.int64))
print(json.dumps({"seconds": seconds, package: importlib.metadata.version(package)}))
