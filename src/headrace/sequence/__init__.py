"""Sequences: choose, transform, pack, order and write a stage's rows; read them back by position."""
