"""Events as sentences, a run as one summary, the model card, the theme of the charts."""
