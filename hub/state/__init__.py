"""What the Hub must remember: the keeper, its protocol and its SQLite."""
