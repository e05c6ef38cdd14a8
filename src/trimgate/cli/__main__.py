"""`python -m trimgate.cli`."""

import sys

from trimgate.cli import main

sys.exit(main())
