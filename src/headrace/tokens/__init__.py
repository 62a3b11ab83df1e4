"""Tokenizers, and the token store: the kept documents, tokenized once."""
