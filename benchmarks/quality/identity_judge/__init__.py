"""A judge that sees what no words say of a product: its outline, colours between names, and the cells of its badge."""
