"""headrace: raw corpora to the exact token sequence that a language model trains on."""

__version__ = "0.1.0"
