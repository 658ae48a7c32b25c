"""What can happen and what follows from it: events, the state they fold to, changes to it. Pure."""
