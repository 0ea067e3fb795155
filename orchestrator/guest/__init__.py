"""Guests: their images, and everything done inside a running one (shell, set-up, sampler)."""
