"""Functions of the user's own: which code they are, how they are loaded from a run's copy of it, and how called."""
