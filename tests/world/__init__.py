"""Other projects' own test suites, run on headrace's loop and on asyncio's, test by test."""
