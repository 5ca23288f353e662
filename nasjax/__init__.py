"""nasjax: searches neural networks that run well on a given edge device."""
