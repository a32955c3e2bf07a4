"""One command line of all commands."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any, Union

import tyro
from tyro.conf import subcommand

from modicum.cli.comparing import Compare
from modicum.cli.filtering import Filter
from modicum.cli.forecasting import Forecast
from modicum.cli.learning import Pretrain, Probe, Relabel
from modicum.cli.making import Distill, Fit
from modicum.cli.methods import Evidence, Methods
from modicum.cli.mixing import Mix
from modicum.cli.runs import Report, Resume, Verify
from modicum.cli.scoring import Score
from modicum.cli.selecting import Select
from modicum.errors import ModicumError

__all__ = ["main"]

COMMANDS = (
    Methods,
    Compare,
    Score,
    Select,
    Filter,
    Forecast,
    Mix,
    Distill,
    Fit,
    Pretrain,
    Probe,
    Relabel,
    Resume,
    Report,
    Verify,
    Evidence,
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when done, 1 for a `ModicumError` (one line), 2 for wrong usage."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if (sys.argv[1:] if argv is None else argv) == ["--version"]:
        from importlib.metadata import version

        print(f"modicum {version('modicum')}")
        return 0
    kinds: Any = tuple(Annotated[c, subcommand(c.__name__.lower(), prefix_name=False)] for c in COMMANDS)
    every: Any = Union[kinds]  # noqa: UP007  # of a tuple that is made here
    command: Any = tyro.cli(every, prog="modicum", description="Make models cost less to train.", args=argv)
    try:
        command.run()
    except ModicumError as error:
        print(f"modicum: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("modicum: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
