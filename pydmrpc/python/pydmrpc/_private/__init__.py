"""What Ray's guides import from ``ray._private``."""
