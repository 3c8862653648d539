"""Model classes, and how other libraries' audio encoders are used."""
