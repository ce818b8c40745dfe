"""A page in the browser that shows what trained networks see in a video."""
