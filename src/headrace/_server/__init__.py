"""headrace.serve(): a server that can be put into production."""
