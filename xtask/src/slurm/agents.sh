
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
