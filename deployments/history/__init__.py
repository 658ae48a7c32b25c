"""Events, the state that they fold to, and the changes that make events. Pure."""
