"""Numbers that say what answers are worth, and how sure that is."""
