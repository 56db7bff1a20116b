"""The variant on disk: layouts, ledger, verification."""
