"""The laboratory: data, training, evaluation, profiles and the published checkpoints. No node imports it."""
