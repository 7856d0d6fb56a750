"""The server: a REST API and web pages on the queue of jobs, the studies and the access tokens."""
