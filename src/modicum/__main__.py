"""`python -m modicum` is `modicum`."""

import sys

from modicum.cli import main

sys.exit(main())
