"""The report of a run, and its figures for other tools; all from the run folder and nothing else."""
