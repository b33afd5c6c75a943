"""Entry point of ``python -m cascade_kv.demo``."""

import sys

from cascade_kv.demo.cli import main

sys.exit(main())
