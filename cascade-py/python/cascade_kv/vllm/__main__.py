"""Prints the value of `vllm serve --kv-transfer-config`: each option is a setting, `--shm-path /dev/shm/kv` is `shm_path`."""

import json
import sys
from dataclasses import fields

from cascade_kv.vllm import kv_transfer_settings
from cascade_kv.vllm.settings import Settings


def main(words: list[str]) -> int:
    """Exit status: 0, or 2 when a setting is wrong."""
    if not words or len(words) % 2 or any(not name.startswith("--") for name in words[::2]):
        print(f"usage: python -m cascade_kv.vllm --SETTING VALUE ...\n{__doc__}", file=sys.stderr)
        return 2
    names = [name[2:].replace("-", "_") for name in words[::2]]
    extra = {name: _value(name, text) for name, text in zip(names, words[1::2], strict=True)}
    try:
        Settings.from_extra(extra)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(kv_transfer_settings(**extra)))
    return 0


def _value(name: str, text: str) -> object:
    # A secret of digits is no number.
    if any(one.name == name and str(one.type).startswith("str") for one in fields(Settings)):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
