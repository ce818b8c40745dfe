"""The commands, a file each, and what only they need. Knows every other room."""
