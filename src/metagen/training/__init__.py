"""Training: the LightningModule, checkpoints and callbacks."""
