#!/usr/bin/env python
"""Count a trained run and price it: python scripts/energy.py RUN --targets a,b --json FILE --html FILE."""

import sys

from neuromorphic.energy.command_line import main

if __name__ == "__main__":
    sys.exit(main())
