"""What the tracks of a trained model do: how far they differ, and what each and the swap are worth."""
