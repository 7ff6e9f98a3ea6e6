"""The command line: parses, calls the rooms below, prints. Every command imports what it needs when it runs."""
