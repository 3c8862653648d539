"""What is trained, and what teaches it."""
