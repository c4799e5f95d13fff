"""The parts of a model and their removal: families, anatomy, shape, sites, surgery, vocabulary."""
