"""What a model is made of, and how parts are cut out of it: families, anatomy, sites, surgery, vocabulary."""
