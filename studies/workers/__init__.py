"""Many processes on one study: here, on a cluster, under SLURM."""
