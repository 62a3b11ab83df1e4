"""What a run will do, before it does anything: documents, tokens, epochs, steps, disk and time."""
