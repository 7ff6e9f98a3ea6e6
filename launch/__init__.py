"""One launch plan for every launcher: `python -m launch CONFIG --via NAME`. No torch is loaded here."""
