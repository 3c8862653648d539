"""Examples: mixtures, scenes, and which clips and pictures they are made of."""
