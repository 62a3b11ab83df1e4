"""Documents that a language model writes: asking, keeping what is answered, and judging it."""
