"""`python -m dehaze` is the command line."""

import sys

from dehaze.cli import main

sys.exit(main())
