"""Control side of the links: sends routing tables, answers gateways, grants leases."""
