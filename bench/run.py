"""Every benchmark, one after the other; each compares the answers first and writes `results/NAME.json`.

python bench/run.py [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHARED = ("harness", "run")


def main(names: list[str]) -> int:
    """Run them; the worst exit status."""
    found = sorted(path for path in HERE.rglob("*.py") if path.parent.name != "peers" and path.stem not in SHARED)
    files = {path.stem: path for path in found}
    wrong = [name for name in names if name not in files]
    if wrong:
        print(f"benchmark {wrong[0]!r} is unknown; expected {', '.join(files)}", file=sys.stderr)
        return 2
    worst = 0
    for name in names or files:
        print(f"== {name}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, files[name]], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
