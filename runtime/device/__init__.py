"""Real devices over adb: the runner in C, its build, and the check of golden vectors on all of them."""
