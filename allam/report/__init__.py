"""The HTML report and the model card, made from manifests and artifacts alone."""
