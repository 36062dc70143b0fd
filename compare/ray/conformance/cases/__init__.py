"""The cases, a file for each bullet of what a Ray program expects."""
