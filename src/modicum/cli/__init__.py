"""The command line: one subcommand per verb, options generated from dataclasses.

Nothing heavy is imported before a command is known, so that help comes at once.
"""

from modicum.cli.main import main

__all__ = ["main"]
