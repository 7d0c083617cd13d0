#!/usr/bin/env python
"""Run a ready network (cuba, coba, brunel, brunel-stdp, microcircuit) and print its figures."""

import sys

from neuromorphic.engine.simulate_cli import main

if __name__ == "__main__":
    sys.exit(main())
