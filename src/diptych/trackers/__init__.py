"""Services that a run's numbers are sent to while it goes on, where its user asked for it with ``--track``."""
