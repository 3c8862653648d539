"""Model cards: the template of every checkpoint, and avgas-mini's own text. Package data of `avgas_pipeline`."""
