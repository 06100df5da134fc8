"""The experiment: what a run folder lacks, computed and stored. Read `pipeline` first."""
