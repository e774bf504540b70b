"""The prediction server: every task at once, from the release in force and nothing else."""
