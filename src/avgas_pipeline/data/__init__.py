"""Data to train and test on: clips with labels and pictures, and soundscapes made of them."""
