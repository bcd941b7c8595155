"""The Consent Manager: what the bank reads and changes of consents and payments."""
