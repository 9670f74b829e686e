"""`python -m cnnvis_fast`."""

import sys

from .cli import main

sys.exit(main())
