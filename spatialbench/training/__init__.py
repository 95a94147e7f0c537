"""Trains and scores pages: the only folder that starts a Trainer."""
