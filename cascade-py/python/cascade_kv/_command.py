"""The program ``cascade``, also as ``python -m cascade_kv``: the same code as the Rust program."""

import sys

from ._native import run_command


def main() -> int:
    """Runs the command that ``sys.argv`` names. Gives the exit status."""
    # What Python has printed so far comes before what the command prints.
    sys.stdout.flush()
    return run_command(["cascade", *sys.argv[1:]])
