"""The admin portal for bank staff."""
