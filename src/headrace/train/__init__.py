"""Training a model on a sequence: loss, optimiser, schedules, checkpoints, the loop, and the step of the flow."""
