"""Outputs, annotations and labels of people in the forms that others publish."""
