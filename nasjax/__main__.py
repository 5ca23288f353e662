"""`python -m nasjax`."""

import sys

from nasjax.cli.main import program

sys.exit(program())
