"""Where decoded pictures are kept: in memory, on disk, or nowhere."""
