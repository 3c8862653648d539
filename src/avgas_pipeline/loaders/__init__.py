"""Loading, assembling, saving and publishing pipelines."""
