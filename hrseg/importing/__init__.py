"""What labelling tools and maps hold becomes the layout of data.dataset=folder: one file a format, one way to write."""
