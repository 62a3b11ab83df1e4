"""Other people's formats: sequences and documents written for their readers, and sequences of theirs opened as ours."""
