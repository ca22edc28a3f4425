"""Trained models in one folder to take away: what goes into it, what is said of it, and what vouches for that."""
