"""The viewer: pages about a run, a sequence or documents, served to a browser on this machine."""
