#!/bin/bash
# A search on Slurm: sbatch docs/cluster/slurm.sh my_spec.yaml
# One Ray node on each machine of the allocation, the search on the first. ~/embtune is a virtual environment with
# embtune, seen by all of them; RUNS too.
#SBATCH --job-name=embtune
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:INT@120    # two minutes before the end: the search says how it stands, and sbatch again goes on
set -euo pipefail
SPEC=$1 RUNS=${RUNS:-$PWD/runs} PORT=${PORT:-6379}
export PATH=${EMBTUNE:-$HOME/embtune}/bin:$PATH RAY_AUTH_MODE=token
[ -s ~/.ray/auth_token ] || ray get-auth-token --generate
mkdir -p "$RUNS"

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(head -n 1 <<< "$nodes")
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')

# --block: Slurm ends a step's processes with the step.
srun --nodes=1 --ntasks=1 -w "$head" ray start --head --block --node-ip-address="$address" --port="$PORT" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --dashboard-host=127.0.0.1 &
until ray status --address "$address:$PORT" > /dev/null 2>&1; do sleep 1; done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 -x "$head" \
    ray start --block --address="$address:$PORT" --num-cpus="$SLURM_CPUS_PER_TASK" &
fi

embtune search "$SPEC" --address "$address:$PORT" --runs "$RUNS" --resume &
search=$!
trap 'kill -INT $search' INT
wait $search || wait $search   # a trapped signal ends the first wait
