"""Entry point of ``python -m cascade_kv``."""

import sys

from ._command import main

sys.exit(main())
