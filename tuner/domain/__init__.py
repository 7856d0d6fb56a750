"""Data types and errors that all other packages of Paceline use."""
