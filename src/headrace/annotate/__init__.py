"""Annotators that are models of torch: read from a folder, or trained from nothing."""
