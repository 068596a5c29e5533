"""asyncio's own event loop with transports of ours."""
