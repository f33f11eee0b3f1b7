"""What train_liif.py needs: the trainer, losses, optimizers and schedules, and a run's config, folder and log."""
