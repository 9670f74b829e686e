"""Runs the command line: `python -m cnnvis_fast`."""

import sys

from .commands.main import main

sys.exit(main())
