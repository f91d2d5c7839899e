// Nothing in the program is to be changed.
