"""Energy models, one file each: a function from counts to rows."""
