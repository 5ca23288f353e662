"""`python -m nasjax`."""

import sys

from nasjax.cli.main import main

sys.exit(main())
