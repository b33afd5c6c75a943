#!/bin/sh
# Tests and measures the GPU tier on the devices of this machine. Results in $CASCADE_OUT or here: gpu.json, gpu-check.json and a log
# of each step. CASCADE_GPU_KILLED: how many processes are killed; CASCADE_GPU_PAIR: devices of two processes, such as 0,1.
here=$(cd "$(dirname "$0")" && pwd)
out=${CASCADE_OUT:-$here}
chmod +x "$here/cascade-bench" "$here/real-device" "$here/store-gpu"
status=0
step() { # NAME LOG COMMAND..: runs it and says how it went
    name=$1 log=$2
    shift 2
    if "$@" >"$out/$log" 2>&1; then echo "$name: right"; else
        echo "$name: WRONG"
        status=1
        tail -n 30 "$out/$log"
    fi
}
step "tests on devices" test.log "$here/real-device" --include-ignored --test-threads=1 --nocapture
grep -E "calibrated:|reserved" "$out/test.log"
export CASCADE_COMMIT
CASCADE_COMMIT=$(cat "$here/commit")
"$here/cascade-bench" --tier gpu --reps 9 --json "$out/gpu.json" "$@" || status=1
export CASCADE_GPU_KILLED="${CASCADE_GPU_KILLED:-240}"
step "killed processes" killed.log timeout 300 "$here/store-gpu" killed --nocapture --test-threads=1
grep -E "killed|survivors" "$out/killed.log"
# Both processes on the first device, unless two are named.
export CASCADE_GPU_PAIR="${CASCADE_GPU_PAIR:-0,0}"
step "two processes on devices $CASCADE_GPU_PAIR" shared.log timeout 120 "$here/store-gpu" shared --nocapture --test-threads=1
grep -E "came in|put on" "$out/shared.log"
if [ -d "$here/python" ]; then
    export PYTHONPATH="$here/python" PYTHONUNBUFFERED=1
    step "Python" python.log timeout 400 python3 -m cascade_kv.gpu_check --json "$out/gpu-check.json"
    rm -rf /dev/shm/cascade-gpu-check
fi
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck; do
        step "compute-sanitizer $tool" "$tool.log" timeout 200 "$sanitizer" --tool "$tool" --error-exitcode 9 \
            "$here/real-device" --include-ignored --test-threads=1 digests_
        tail -n 1 "$out/$tool.log"
    done
else
    echo "compute-sanitizer is not on this machine: not run"
fi
exit $status
