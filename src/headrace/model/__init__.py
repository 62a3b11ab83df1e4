"""The decoder: its configuration, presets and the network itself."""
