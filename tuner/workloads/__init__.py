"""Workloads that ship with Paceline."""
