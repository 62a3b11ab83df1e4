"""Sequences: sample, transform, pack, shuffle and write a stage's rows; read them back by position."""
