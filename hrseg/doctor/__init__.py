"""The label doctor: finds what is wrong with labels, shows it on a page, and writes a mended data set."""
