"""The laws that every method keeps, and the suite that holds a method to them."""
