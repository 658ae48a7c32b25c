"""The HTTP side of a gateway process: parsing, admission, routes, the compiled routing table."""
