"""Whether servers can be, or are, good nodes: looked at from outside, before and after there is a cluster."""

from shardman.nodes.doctor.examination import Examination, examine
from shardman.nodes.doctor.finding import Diagnosis, Level

__all__ = ["Diagnosis", "Examination", "Level", "examine"]
