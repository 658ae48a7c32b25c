"""One planned request: attempts, failover, relay of the answer, continuation of broken streams."""
