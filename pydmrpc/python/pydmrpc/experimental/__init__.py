"""What Ray programs import from ``ray.experimental``."""
