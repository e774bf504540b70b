"""The addresses of the prediction server, a module each for what belongs together."""
