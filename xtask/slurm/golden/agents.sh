#!/bin/bash
#SBATCH --job-name=cascade
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=2
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:TERM@60
# Written by `cargo xtask slurm` for the site generic.
# shellcheck disable=SC2317
results="$SLURM_SUBMIT_DIR/cascade-results/$SLURM_JOB_ID"
agent="cascade"
launch=(--mpi=pmi2)
agents_by=300

set -uo pipefail
umask 077

say() { printf '%s cascade: %s\n' "$(date +%T)" "$*" >&2; }

if ! mkdir -p "$results"; then
  say "cannot make $results"
  exit 1
fi
agents=""          # process of the step of agents
work=""            # process of the step of the command
agents_state="off" # off, never, serving, ended
agents_lost=0

# Waits until the process of a step has ended, some seconds.
ended() {
  for _ in $(seq "$2"); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 1
  done
  return 1
}

end_work() {
  [ -n "$work" ] || return 0
  kill -0 "$work" 2>/dev/null || return 0
  # srun passes this on to every task, and ends what does not go.
  kill -TERM "$work" 2>/dev/null
  ended "$work" 20 || kill -KILL "$work" 2>/dev/null
}

end_agents() {
  [ -n "$agents" ] || return 0
  agents_lost=$(grep -cE '^(slurmstepd|srun): error: .*task' "$results/agents.err")
  if ! kill -0 "$agents" 2>/dev/null; then
    [ "$agents_state" = "serving" ] && agents_state="ended"
    return 0
  fi
  local step
  step=$(squeue --noheader --steps --job "$SLURM_JOB_ID" --format '%i %j' | awk '$2 == "cascade-agents" { print $1 }')
  # To the tasks alone: srun itself would end them the hard way.
  if [ -n "$step" ]; then
    scancel --signal=TERM "$step"
    ended "$agents" 20 && return 0
  fi
  say "agents did not end when they were told to: ending them"
  kill -TERM "$agents" 2>/dev/null
  ended "$agents" 10 || kill -KILL "$agents" 2>/dev/null
}

# Whatever ends this script: its own end, a signal, the limit of time.
finish() {
  local status=$?
  trap - EXIT
  trap '' TERM INT
  end_work
  end_agents
  remove_arenas
  printf '{"schema":"cascade.job/1","job":"%s","name":"%s","nodes":%d,"node_list":"%s","status":%d,"agents":"%s","agents_lost":%d,"seconds":%d}\n' \
    "$SLURM_JOB_ID" "$SLURM_JOB_NAME" "$SLURM_JOB_NUM_NODES" "$SLURM_JOB_NODELIST" "$status" "$agents_state" \
    "$agents_lost" "$SECONDS" >"$results/job.json"
  if [ "$status" -eq 0 ]; then
    say "done: $results"
  else
    say "FAILED with status $status: $results"
    find "$results" -name '*.err' -size +0 | sort | head -n 4 | while read -r file; do
      say "end of $file:"
      tail -n 5 "$file" >&2
    done
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
remove_arenas() {
  [ -d "$CASCADE_SHM_PATH" ] || [ "$SLURM_JOB_NUM_NODES" -gt 1 ] || return 0
  srun --overlap -K0 --mpi=none --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" --job-name=cascade-gc \
    "$agent" gc --older-than 0s --yes >"$results/gc.txt" 2>&1 || say "arenas may be left: see $results/gc.txt"
}

export CASCADE_SHM_PATH="/dev/shm/cascade-$USER"

# One agent a node, beside the command. -K0: the others go on when one dies.
agents_state="never"
: >"$results/agents.jsonl"
srun --overlap -K0 "${launch[@]}" --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" \
  --job-name=cascade-agents "$agent" serve --json >"$results/agents.jsonl" 2>"$results/agents.err" &
agents=$!
until [ "$(grep -o '"event":"serving"' "$results/agents.jsonl" | wc -l)" -ge "$SLURM_JOB_NUM_NODES" ]; do
  if ! kill -0 "$agents" 2>/dev/null; then
    say "agents ended before all of them served"
    exit 1
  fi
  if [ "$SECONDS" -ge "$agents_by" ]; then
    say "agents do not serve after $SECONDS s"
    exit 1
  fi
  sleep 0.2
done
agents_state="serving"
say "agents serve on $SLURM_JOB_NUM_NODES nodes"
export CASCADE_REMOTE=agent

srun --overlap -K0 "${launch[@]}" --ntasks-per-node=2 --ntasks=$((SLURM_JOB_NUM_NODES * 2)) \
  --job-name=cascade-command --output="$results/rank-%t.out" --error="$results/rank-%t.err" \
  python serve.py --name 'it'\''s here' &
work=$!
wait "$work"
exit $?
