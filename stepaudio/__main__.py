"""``python -m stepaudio`` is ``stepaudio``."""

import sys

from stepaudio.cli import main

sys.exit(main())
