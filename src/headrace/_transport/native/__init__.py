"""The native way to a socket: Linux, and the compiled build only."""
