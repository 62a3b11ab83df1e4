"""Texts made of the characters that split patterns tell apart."""

from __future__ import annotations

from hypothesis import strategies as st

# Every character that some pattern names or whose class is seldom seen, and the letters of contractions.
ODD = [
    *"aZsSltTrReEvVmMdDlL09' \n\r\t!(\"_", "\x00", "\x1c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u3000",
    "\u017f", "\u212a", "\u0301", "\u0663", "\xb2", "\u2167", "\u6f22", "\u02b0", "\u2581", "\U0001f600",
    "\U0001d7d9", "\U00020000", "\U000e0101", "\uffff", "\U0010ffff", "'s", "'LL", " '", "  ", "\r\n", "12345",
    "\xe9", "\u0323", "\u0345", "\u0338", "\u1100", "\u1161", "\u11a8", "\uac00", "\u0958", "\u0c3c",
    "\U0001d160", "\u212b", "\U00011de0", "<tool_call>", "<|x|>", "<<|", "<|endoftext|>", "<tool", ">", "\u0378",
    "B", "/", "\u01c5", "\u0416", "\u0436", "\u0d3b", "\u10d0", "\n/", "'\u017f",
]  # fmt: skip
RUNS = st.lists(st.tuples(st.sampled_from(ODD), st.sampled_from([1, 1, 1, 2, 3, 7])), max_size=40).map(
    lambda runs: "".join(char * count for char, count in runs)
)
