"""What all pages that are served here share."""
