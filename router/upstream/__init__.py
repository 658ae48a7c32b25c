"""The port to a variant and its two implementations: HTTP and an in-memory fake."""
