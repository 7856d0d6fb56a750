"""Plain data and errors that every part of Paceline shares."""
