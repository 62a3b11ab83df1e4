"""How much memory a training takes, by term and moment of a step, from its configuration alone; what makes it fit."""
