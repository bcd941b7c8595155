"""The Consent Manager: what the bank reads and patches."""
