"""The sections of the page, one file each: every function takes the facts and gives markup."""
