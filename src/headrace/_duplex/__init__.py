"""Stream: both halves of a connection as one object, and what stands on it."""
