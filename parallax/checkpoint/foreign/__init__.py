"""Other people's layouts of the same weights: tables of names, and what their configurations mean here."""
