#!/usr/bin/env python
"""Convert a trained network into a spiking one: python scripts/convert.py SOURCE --run-dir DIR --recipe NAME --T 16."""

import sys

from snn.conversion.command_line import main

if __name__ == "__main__":
    sys.exit(main())
