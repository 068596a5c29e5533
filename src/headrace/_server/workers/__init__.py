"""serve(workers=…): processes that are started, watched and replaced."""
