#!/bin/sh
# Tests and measures the GPU tier on the devices of this machine. Results: gpu.json and test.log, in $CASCADE_OUT or here.
here=$(cd "$(dirname "$0")" && pwd)
out=${CASCADE_OUT:-$here}
chmod +x "$here/cascade-bench" "$here/real-device"
status=0
"$here/real-device" --include-ignored --test-threads=1 --nocapture >"$out/test.log" 2>&1 || status=1
tail -n 40 "$out/test.log"
export CASCADE_COMMIT
CASCADE_COMMIT=$(cat "$here/commit")
"$here/cascade-bench" --tier gpu --reps 9 --json "$out/gpu.json" "$@" || status=1
exit $status
