#!/bin/bash
# A Ray cluster inside one Slurm allocation, for one grid:  sbatch configs/clusters/slurm.sh fashion-mnist
# Submit it again to continue: only missing runs start, and interrupted ones resume from their last epoch.
# Edit sizes, environment and paths; STORE and DATA must be visible on every node.
#SBATCH --job-name=autodo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=2
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
# Two minutes before the time limit, the launch stops as after Ctrl-C.
#SBATCH --signal=B:TERM@120
set -euo pipefail

GRID=${1:?usage: sbatch slurm.sh GRID}
STORE=${STORE:-$HOME/autodo/$GRID}
DATA=${DATA:-$HOME/data}
# source "$HOME/autodo/.venv/bin/activate"

# A token for this job only; without it, anyone who reaches the ports can run code as you.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

# Ports of this job, because nodes may be shared with other jobs.
port=$((20000 + SLURM_JOB_ID % 1000 * 10))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$head" | head -n 1 | cut -d ' ' -f 1):$port
size=(--num-cpus="$SLURM_CPUS_PER_TASK" --dashboard-agent-listen-port=$((port + 3)) --disable-usage-stats --block)

# --block ties Ray to the step, and the step ends with the job. `ray stop` would end other clusters on the node too.
srun --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="${address%:*}" --port="$port" --temp-dir="/tmp/ray-$SLURM_JOB_ID" \
    --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) "${size[@]}" &
for _ in $(seq 60); do
    ray status --address="$address" > /dev/null 2>&1 && break
    sleep 2
done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$address" "${size[@]}" &
fi

autodo launch "$GRID" --address "$address" --store "$STORE" --data-dir "$DATA" --cpus-per-run 4 --gpus-per-run 0.5 &
driver=$!
trap 'kill -TERM "$driver"' TERM
# A trapped signal ends the first wait before the launch ends.
wait "$driver" || true
code=0
wait "$driver" || code=$?
exit "$code"
