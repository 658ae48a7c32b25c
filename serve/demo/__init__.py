"""The demo model: its tasks, its training, its variants and the table that compares them."""
