"""`python -m trimgate`."""

import sys

from trimgate.cli import main

sys.exit(main())
