"""The HTTP side of a gateway process: parsing, admission, routes, and the compiled routing table."""
