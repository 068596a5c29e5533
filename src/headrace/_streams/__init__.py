"""asyncio's surface: reader, writer, protocol, connecting and listening."""
