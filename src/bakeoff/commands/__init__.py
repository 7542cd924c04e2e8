"""The commands of the command line, a module a group. None imports anything heavy before it is called."""
