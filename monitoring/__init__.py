"""What is measured and how it is judged. Knows no HTTP and no Ray."""
