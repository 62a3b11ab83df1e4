"""Train a model on a sequence: loss, optimizer, schedules, checkpoints, the loop, and the step of the flow."""
