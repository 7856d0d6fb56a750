"""Measurements that others will ask for again; each prints its figures, none is a timed test."""
