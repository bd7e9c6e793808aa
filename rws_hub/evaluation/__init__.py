"""`rws eval`: clean and corrupted accuracy of a model, with and without signatures. Importing this is light."""
