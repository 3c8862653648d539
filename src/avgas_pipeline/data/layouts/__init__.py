"""Where clips lie: each layout of a data set as parts that are read one after another."""
