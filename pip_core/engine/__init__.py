"""The one mechanism: a recipe goes in, a stream of events comes out."""
