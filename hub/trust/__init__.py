"""The Trust Framework as seen from here: participants, key sets, revocation, registration."""
