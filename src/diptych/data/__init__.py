"""Pictures: where they come from, how they are read, kept and handed out in batches."""
