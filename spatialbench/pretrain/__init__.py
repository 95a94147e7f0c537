"""The training of the small foundation models that the package ships."""
