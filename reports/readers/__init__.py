"""Read the files of a store into data frames, with a warning for each fault."""
