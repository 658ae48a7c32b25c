"""The control side of the links: publishes routing tables, answers gateways, tells who is alive."""
