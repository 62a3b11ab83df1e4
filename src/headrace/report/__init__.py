"""What happened in a run, read from its folder: facts, a page with charts, and a summary for the terminal."""
