"""A model bank: ledger, customers, Ozone Connect and the pages where a customer consents; a stranger to the Hub's code."""
