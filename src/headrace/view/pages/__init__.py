"""The pages: a file or a folder each, with what it loads and how it is drawn."""
