"""What the training scripts share: settings, runs, data, losses and models."""
