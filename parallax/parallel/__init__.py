"""How a model is made to run: engines, transforms applied from outside, gradient norm."""
