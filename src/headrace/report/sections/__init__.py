"""The sections of the page, one per file: functions from facts to markup."""
