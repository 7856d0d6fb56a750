"""Plain data types and errors shared by all of Paceline."""
