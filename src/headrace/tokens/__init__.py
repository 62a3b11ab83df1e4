"""Tokenizers, and the token store: the kept documents, tokenised once."""
