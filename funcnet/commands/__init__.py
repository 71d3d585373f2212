"""What the command line does: the networks it knows, their jobs, and how a job is run."""
