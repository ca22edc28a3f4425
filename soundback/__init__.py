"""Soundback gives silent video its sound back."""
