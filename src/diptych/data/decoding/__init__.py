"""From an encoded picture, whatever its format, to its pixels."""
