"""The one way out: connections to the bank (Ozone Connect)."""
