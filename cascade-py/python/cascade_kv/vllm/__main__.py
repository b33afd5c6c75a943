"""Prints the value of `vllm serve --kv-transfer-config`: each option is a setting, `--shm-path /dev/shm/kv` is `shm_path`."""

import json
import sys

from cascade_kv.vllm import kv_transfer_settings
from cascade_kv.vllm.settings import Settings


def main(words: list[str]) -> int:
    """Exit status: 0, or 2 when a setting is wrong."""
    if not words or len(words) % 2 or any(not name.startswith("--") for name in words[::2]):
        print(f"usage: python -m cascade_kv.vllm --SETTING VALUE ...\n{__doc__}", file=sys.stderr)
        return 2
    extra = {name[2:].replace("-", "_"): _value(text) for name, text in zip(words[::2], words[1::2], strict=True)}
    try:
        Settings.from_extra(extra)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(kv_transfer_settings(**extra)))
    return 0


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
