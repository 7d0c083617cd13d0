#!/usr/bin/env python
"""Run a ready network (cuba, coba, brunel, brunel-stdp, microcircuit), or a trained run folder with --checkpoint RUN."""

import sys

from neuromorphic.simulate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
