"""What is in a data set, before anything is learned from it: see ``run.audit``."""
