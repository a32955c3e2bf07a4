"""`python -m modicum` is the command line."""

from modicum.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    raise SystemExit(main())
