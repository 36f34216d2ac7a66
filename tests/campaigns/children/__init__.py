"""Children: programs and functions that the campaigns run in processes of their own."""
