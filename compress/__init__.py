"""compress: makes students. The only room that trains."""
