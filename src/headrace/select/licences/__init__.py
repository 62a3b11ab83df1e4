"""Under which license each document is, and how that was found."""
