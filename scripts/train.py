"""Train a spiking network: python scripts/train.py --config RECIPE --run-dir DIR [--key value ...]."""

import sys

from snn.training.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
